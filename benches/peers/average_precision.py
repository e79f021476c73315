"""pycocotools on random boxes: the golden values of `lth::transfer::average_precision`.

    python average_precision.py

The boxes come from a linear congruential generator that the test in crates/lth/src/transfer/precision.rs draws the same
way. Needs pycocotools. Prints one JSON object.
"""

import contextlib
import io
import json

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

state = 12345


def draw(below):
    global state
    state = (state * 1103515245 + 12345) % (1 << 31)
    return (state >> 8) % below


def random_boxes():
    objects, detections = [], []
    for image in range(40):
        own = []
        for _ in range(1 + draw(5)):
            kind, left, top = draw(3), draw(60), draw(60)
            width, height = 8 + draw(40), 8 + draw(40)
            own.append((kind, [left, top, left + width, top + height]))
        for _ in range(draw(12)):
            near_kind, near = own[draw(len(own))]
            left, top, right, bottom = [corner + draw(13) - 6 for corner in near]
            kind = draw(3) if draw(4) == 0 else near_kind
            right, bottom = max(right, left + 1), max(bottom, top + 1)
            score = draw(50) / 50
            detections.append((image, kind, [left, top, right, bottom], score))
        objects += [(image, kind, corners) for kind, corners in own]
    return objects, detections


def as_coco(image, kind, corners):
    left, top, right, bottom = corners
    box = [left, top, right - left, bottom - top]
    return {"image_id": image + 1, "category_id": kind + 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}


def main():
    objects, detections = random_boxes()
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": image + 1} for image in range(40)],
            "categories": [{"id": kind + 1} for kind in range(3)],
            "annotations": [as_coco(*found) | {"id": number + 1} for number, found in enumerate(objects)],
        }
        truth.createIndex()
        results = truth.loadRes([as_coco(*found[:3]) | {"score": found[3]} for found in detections])
        evaluation = COCOeval(truth, results, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    ap, ap50, ap75 = (float(value) for value in evaluation.stats[:3])
    print(json.dumps({"objects": len(objects), "detections": len(detections), "ap": ap, "ap50": ap50, "ap75": ap75}))


main()
