"""The page of the metric's Space: a table of classes in, the scores out."""

from pathlib import Path

import evaluate
import gradio as gr

COLUMNS = ["predictions", "references"]
# by its file, which is found in a Space and in a checkout alike
METRIC = evaluate.load(str(Path(__file__).with_name("uar_war.py")))


def compute(rows: list[list[str]], label_names: str) -> dict[str, float | str | None]:
    """The scores of a table of predictions and references; recalls that there are none of become `None`."""
    names = [name.strip() for name in label_names.split(",")] if label_names.strip() else None
    cells = [row for row in rows if any(str(cell).strip() for cell in row)]
    try:
        predictions, references = ([int(row[column]) for row in cells] for column in range(len(COLUMNS)))
        scores = METRIC.compute(predictions=predictions, references=references, label_names=names)
    except ValueError as error:
        raise gr.Error(str(error)) from error
    return {name: None if score != score else score for name, score in scores.items()}


page = gr.Interface(
    fn=compute,
    inputs=[
        gr.Dataframe(headers=COLUMNS, type="array", value=[["0", "0"], ["1", "1"], ["1", "1"], ["0", "1"]]),
        gr.Textbox(label="label_names", placeholder="sad, happy"),
    ],
    outputs=gr.JSON(label="scores"),
    title="UAR and WAR",
    description=METRIC.description,
)

if __name__ == "__main__":
    page.launch()
