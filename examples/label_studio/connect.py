"""A project in Label Studio whose images come with masks.

pip install label-studio-sdk
python examples/label_studio/connect.py http://127.0.0.1:8080 TOKEN http://127.0.0.1:8000/label-studio photo.jpg
"""

import sys
from base64 import b64encode
from pathlib import Path

from label_studio_sdk import LabelStudio

label_studio, token, backend, image = sys.argv[1:]
client = LabelStudio(base_url=label_studio, api_key=token)
config = Path(__file__).with_name("labelling.xml").read_text()
project = client.projects.create(title="Astronauts", label_config=config)
client.ml.create(project=project.id, url=backend, title="SOLO")
uri = f"data:image/jpeg;base64,{b64encode(Path(image).read_bytes()).decode()}"
client.projects.import_tasks(project.id, request=[{"image": uri}])
client.actions.create(id="retrieve_tasks_predictions", project=project.id, selected_items={"all": True})
for task in client.tasks.list(project=project.id, fields="all"):
    for prediction in task.predictions:
        labels = [region["value"]["brushlabels"][0] for region in prediction.result]
        sys.stdout.write(f"{prediction.model_version}: {', '.join(labels)}, score {prediction.score:.2f}\n")
