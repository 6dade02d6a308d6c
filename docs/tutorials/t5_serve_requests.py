"""
Serve, file and verify a request
================================

The HTTP service predicts, takes deletion requests, and carries them out beside it. Here it runs inside of this
script, over ``starlette``'s test client; ``lmeraser serve`` starts the same over a network.
"""

import tempfile
import time
import uuid
from pathlib import Path

import numpy as np
from PIL import Image
from starlette.testclient import TestClient

from lmeraser import Eraser
from lmeraser.evidence import certificate
from lmeraser.evidence.dsse import PublicKey
from lmeraser.service.app import make_app
from lmeraser.service.service import Service

# %%
# A workspace with a model
# ------------------------
#
# Pictures ``CLASS/PERSON/FILE``. A request can be taken back during a grace period, an hour if nothing else is
# set, before its records are deleted, and the service waits ``batch_seconds`` for further ones; here it waits
# for neither.

folder = Path(tempfile.mkdtemp())
rng = np.random.default_rng(0)
for number in range(24):
    pixels = rng.integers(0, 90, (48, 48, 3), dtype=np.uint8)
    pixels[..., number % 2] += 120
    place = folder / "photos" / ("red", "green")[number % 2] / f"person-{number % 6}" / f"{number}.png"
    place.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(place)

settings = {
    "backbone": {"image_size": 32},
    "service": {"grace_period": 0.0, "batch_seconds": 0.0},
}
eraser = Eraser.create(folder / "workspace", settings)
eraser.add(folder / "photos", subject_level=2)
eraser.train()

# %%
# Keys
# ----
#
# Each system gets a key with the least scope: a shop that predicts, a desk that files requests and reads their
# outcome. ``lmeraser keys create`` prints such a key, once.

keys, now = eraser.workspace.api_keys, eraser.workspace.clock()
shop = {"Authorization": f"Bearer {keys.create('shop', ['predict'], now=now)[1]}"}
desk = {"Authorization": f"Bearer {keys.create('privacy desk', ['request', 'read'], now=now)[1]}"}
service = Service(eraser)
service.__enter__()
http = TestClient(make_app(service))
http.__enter__()

answer = http.post("/predict", headers=shop, files={"images": place.open("rb")}).json()
print(answer["answers"][0])

# %%
# File a request
# --------------
#
# The desk makes the id; repeating the request with it is harmless. First the plan, which files nothing:

request = str(uuid.uuid4())
identities = [{"identity_type": "controller_customer_id", "identity_value": "person-3", "identity_format": "raw"}]
plan = http.post("/plan", headers=desk, json={"subject_identities": identities}).json()
print(plan["records"], "records would be deleted")

receipt = http.post(
    "/requests",
    headers=desk,
    json={
        "regulation": "gdpr",
        "subject_request_id": request,
        "subject_request_type": "erasure",
        "submitted_time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "subject_identities": identities,
    },
)
print(receipt.status_code, receipt.json()["expected_completion_time"][:10])

# %%
# From that answer on, no prediction uses what the person's records went into. Then wait for the derivation:

deadline = time.monotonic() + 120
while (status := http.get(f"/requests/{request}", headers=desk).json())["request_status"] != "completed":
    assert time.monotonic() < deadline, status
    time.sleep(0.2)
print(status["request_status"])

# %%
# Verify the certificate
# ----------------------
#
# The key is taken from the workspace once, not from the network; nothing else of the workspace is needed.

signed = http.get(f"/requests/{request}/certificate", headers=desk).content
facts = certificate.verify(signed, PublicKey.read(folder / "workspace" / "signing.pub"))
certificate.verify_in_ledger(signed, facts, (folder / "workspace" / "ledger").read_bytes())
print(facts["counts"])

# %%
# And the model is the one without them:

http.__exit__(None, None, None)
service.__exit__(None, None, None)
eraser.close()
with Eraser(folder / "workspace") as eraser:
    assert eraser.status().records == 20
    assert eraser.audit().identical
    print(eraser.status().records, "records are left")
