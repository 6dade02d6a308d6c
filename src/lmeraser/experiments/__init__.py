"""The paper's comparison on real images: data sets, methods, what is measured, tables, figures, one report."""
