"""Checks whether a fixture's result depends on rounding. Run by the reference's interpreter, in the fixture tool's folder.

    PYTHON reference_rounding.py TOOL_FOLDER VARIANT FIXTURE

Stock mmdet runs the fixture in float32 and in float64. Then its post-processing runs several times on the float32 scores and masks
with noise of the size of that difference: pixels at the threshold may flip, and matrix NMS amplifies the effect. Prints the largest
change of an instance's score, or 1 if labels change.
"""

# ruff: noqa: E402, F403, F405
import sys

tool, variant, fixture = sys.argv[1:4]
sys.path.insert(0, tool)
from common import *

TRIALS = 8
dcn = variant.endswith("_dcn")
if dcn:
    import deform
    import mmcv.ops.deform_conv as dcn_module

    def _forward(self, x):
        offsets = self.conv_offset(x)
        return deform.deform_conv2d(
            x, offsets, self.weight, self.stride, self.padding, self.dilation, self.groups, self.deform_groups
        )

    dcn_module.DeformConv2dPack.forward = _forward


def moved(first, second):
    """Largest difference between the scores of two results, by label; the order of labels may differ."""
    worst = 0.0
    for label in set(first.labels.tolist()) | set(second.labels.tolist()):
        one, other = (answer.scores[answer.labels == label].sort().values for answer in (first, second))
        if len(one) != len(other):
            return 1.0
        worst = max(worst, float((one - other).abs().max()))
    return worst


torch.set_num_threads(2)
torch.manual_seed(0)
model = build(variant.removesuffix("_dcn"), dcn=dcn)
stored = torch.load(f"{fixture}/mmdet.pth", map_location="cpu", weights_only=False)
model.load_state_dict(stored["state_dict"], strict=True)
scale = tuple(json.load(open(f"{fixture}/meta.json"))["scale"])  # noqa: SIM115
inputs, samples = prep(model, cv2.imread(f"{fixture}/input.png"), scale)

head, seen = type(model.mask_head), []
untouched = head._predict_by_feat_single


def spy(self, scores, *masks_and_rest, **options):
    """Record the inputs of post-processing."""
    seen.append((scores.clone(), [m.clone() for m in masks_and_rest if torch.is_tensor(m)], masks_and_rest, options))
    return untouched(self, scores, *masks_and_rest, **options)


head._predict_by_feat_single = spy
with torch.no_grad():
    single = model.predict(inputs, copy.deepcopy(samples), rescale=True)[0].pred_instances
    double = model.double().predict(inputs.double(), copy.deepcopy(samples), rescale=True)[0].pred_instances
    worst = moved(single, double)
    (scores, masks, rest, options), (_, exact, _, _) = seen
    model.float()
    others = rest[len(masks) :]
    sizes = [float((a - b).square().mean().sqrt()) for a, b in zip(masks, exact, strict=True)]
    for _ in range(TRIALS):
        noisy = [m + s * torch.randn_like(m) for m, s in zip(masks, sizes, strict=True)]
        worst = max(worst, moved(single, untouched(model.mask_head, scores.clone(), *noisy, *others, **options)))
print(worst)
