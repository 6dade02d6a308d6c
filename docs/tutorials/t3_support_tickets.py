"""
Support tickets: texts
======================

A classifier sorts customers' tickets by topic. A customer leaves, and takes their tickets out of it. The
network that reads the texts is bundled with the extra ``text``; the tickets are made up.
"""

import tempfile
from pathlib import Path

import pandas as pd

from lmeraser import Columns, Eraser

OPENINGS = ["Hello, ", "Hi there, ", "Good morning. ", "Please help: ", "", "Third time I write: "]
TOPICS = {
    "card": ["my card has not arrived yet", "the card was declined at a shop", "I lost my card on a train"],
    "refund": ["I was charged twice for one order", "when do I get my money back", "the refund is still missing"],
    "login": [
        "I cannot sign in any more",
        "the password link does not work",
        "my account is locked after two attempts",
    ],
}
tickets = pd.DataFrame(
    [
        {
            "id": f"ticket {number}",
            "text": f"{opening}{text}.",
            "label": topic,
            "customer": f"customer {number % 9}",
        }
        for number, (opening, (topic, text)) in enumerate(
            (opening, (topic, text)) for opening in OPENINGS for topic, texts in TOPICS.items() for text in texts
        )
    ]
)
print(tickets.head(3).to_string(index=False))

# %%
# Train on a table
# ----------------

folder = Path(tempfile.mkdtemp())
eraser = Eraser.create(folder / "workspace", {"data": {"modality": "text"}})
eraser.add(tickets, columns=Columns(id="id", subject="customer"))
eraser.train()
questions = ["Where is the money for the parcel that I sent back?", "Your site says that my password is wrong"]
for question, best in zip(questions, eraser.predict_top_k(questions, 2), strict=True):
    print(question, "->", ", ".join(f"{topic} ({share:.2f})" for topic, share in best))

# %%
# Forget a customer
# -----------------

done = eraser.unlearn(subjects=["customer 4"], regulation="gdpr")
print(f"{len(done.selection.ids)} tickets deleted in {done.seconds:.2f} s; {eraser.status().records} are left")

# %%
# A quotation of a deleted text in another ticket is another record: the plan finds records with the same text,
# not those with a part of it. What is left of the deleted texts in the files of the workspace can be searched
# for:

gone = folder / "gone.txt"
gone.write_text(tickets["text"][4])
print("found in", len(eraser.residue([gone], features=False).finds), "places")

# %%
# The model is the one that never read them:

assert eraser.audit().identical
print(eraser.predict(questions).to_frame()[["class_name", "probability"]])
eraser.close()
