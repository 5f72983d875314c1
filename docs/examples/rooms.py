"""An example of everything that the rooms of langslice make public; goes on where functions.py ends. The tests run them."""

from pathlib import Path

import langslice
from langslice.mini import heldout_languages, heldout_text, mini_model_path

# langslice.__version__
print(langslice.__version__)

# langslice.LangsliceError
try:
    langslice.plan("no-such-folder", languages="ko")
except langslice.LangsliceError as error:
    print(error.message, error.hint)

# langslice.SlicePlan
kept = langslice.plan("mini", languages="ko").kept  # of a SlicePlan: (rows,) ids of the source, ascending

# langslice.SliceResult
result = langslice.slice("mini", "ko", languages="ko", verify=False)  # a SliceResult
print(result.parameters, result.plan.request)

# langslice.counting.TokenCounts
counts = langslice.count("mini", "ko.txt")  # TokenCounts
print(counts.units, "lines,", counts.counts.sum(), "tokens")

# langslice.counting.load_counts
from langslice.counting import load_counts
from langslice.tokenizer import open_tokenizer

counts.save("ko.parquet")
again = load_counts(Path("ko.parquet"), open_tokenizer(mini_model_path()))

# langslice.counting.merge_counts
from langslice.counting import merge_counts

both = merge_counts([counts, langslice.count("mini", "en.txt")], [1.0, 0.5])

# langslice.demonstrations.Demonstration
from langslice.demonstrations import Demonstration

prompt = Demonstration("en", ("Good morning.", "Good evening."))

# langslice.demonstrations.Layout
from langslice.demonstrations import Layout

layout = Layout(shots=2, count=4)

# langslice.demonstrations.read_pairs
from langslice.demonstrations import read_pairs

pairs = read_pairs(["fr-en.tsv"], ("source", "target"))

# langslice.demonstrations.parallel_demonstrations
from langslice.demonstrations import parallel_demonstrations

translations = parallel_demonstrations(pairs, ("fr", "en"), layout)

# langslice.demonstrations.text_demonstrations
from langslice.demonstrations import text_demonstrations

texts = text_demonstrations(heldout_text("en"), "en", layout)

# langslice.demonstrations.code_demonstrations
from langslice.demonstrations import code_demonstrations

code = code_demonstrations(["def add(a, b):\n    return a + b\n"] * 8, layout)

# langslice.demonstrations.write_demonstrations
from langslice.demonstrations import write_demonstrations

write_demonstrations([*translations, *texts], Path("demonstrations.jsonl"))

# langslice.demonstrations.read_demonstrations
from langslice.demonstrations import read_demonstrations

read = read_demonstrations("demonstrations.jsonl")

# langslice.evaluation.EvaluateOptions
from langslice.evaluation import EvaluateOptions

evaluation = langslice.evaluate("mini", options=EvaluateOptions(tasks="perplexity", languages="ko", limit=2))

# langslice.evaluation.Evaluation
evaluation.save("results.json")  # an Evaluation

# langslice.evaluation.Score
score = evaluation.scores[0]  # a Score
print(score.task, score.language, score.metric)

# langslice.evaluation.Value
value = score.original  # a Value: with its interval and number of items
print(value.value, value.low, value.high, value.n)

# langslice.evaluation.load_task
from langslice.evaluation import load_task

task = load_task("xnli")

# langslice.evaluation.ChoiceTask
print(task.prompt, task.labels)  # a ChoiceTask

# langslice.evaluation.rank_consistency
from langslice.evaluation import rank_consistency

print(rank_consistency([[3, 1, 2]], [[3, 2, 1]]))  # (items,) shares between 0 and 1

# langslice.evaluation.random_consistency
from langslice.evaluation import random_consistency

print(random_consistency(3))

# langslice.features.measure_magnitudes
from langslice.features import measure_magnitudes

magnitudes = measure_magnitudes(mini_model_path(), {"mt": translations, "en": texts})

# langslice.features.Magnitudes
print(magnitudes.of("mt").shape)  # Magnitudes of one condition: (layers, dimensions)

# langslice.features.overlap
from langslice.features import overlap

print(overlap(magnitudes).shape)

# langslice.features.prominence
from langslice.features import prominence

print(prominence(magnitudes, "mt", ["en"]).shape)  # (layers, dimensions)

# langslice.features.particular_dimensions
from langslice.features import particular_dimensions

print(particular_dimensions(magnitudes, "mt", ["en"]).sum(), "dimensions are large in translation alone")

# langslice.features.standing_out
from langslice.features import standing_out

marked = standing_out(magnitudes, "mt", ["en"], count=3)

# langslice.features.ablate
from langslice.features import ablate

ablations = ablate(mini_model_path(), magnitudes, {"mt": translations, "en": texts}, "mt", marked, seeds=(0,), limit=2)

# langslice.features.Ablation
print(ablations[0].zeroed, ablations[0].condition, ablations[0].loss)  # an Ablation

# langslice.features.read_pairs_to_translate
from langslice.features import read_pairs_to_translate

held_out = read_pairs_to_translate("fr-en", 1, shots=1)

# langslice.features.translate_ablated
from langslice.features import translate_ablated

translated = translate_ablated(
    mini_model_path(), magnitudes, "mt", marked, held_out, seeds=(0,), new_tokens=4, resamples=100
)

# langslice.features.AblatedTranslation
print(translated[0].zeroed, translated[0].metric, translated[0].score)  # an AblatedTranslation

# langslice.files.read_header
from langslice.files import read_header

tensors, metadata = read_header(mini_model_path() / "model.safetensors")

# langslice.formats.ExportOptions
from langslice.formats import ExportOptions

options = ExportOptions(precision="q8_0", pre="qwen35", verify=False)

# langslice.formats.Exported
exported = langslice.export("ko", "ko-gguf", options=options)  # Exported
print(exported.files, exported.checks, exported.notes)

# langslice.healing.HealOptions
from langslice.healing import HealOptions

healed = langslice.heal("ko-en", "healed-again", options=HealOptions(corpus="ko.txt", steps=1, seq_length=32))

# langslice.healing.HealResult
print(healed.steps, healed.loss, healed.trained)  # a HealResult

# langslice.mini.mini_model_path
print(mini_model_path())  # the folder of the packaged model

# langslice.mini.heldout_languages
print(heldout_languages())

# langslice.mini.heldout_text
print(heldout_text("ko")[0])

# langslice.model.open_checkpoint
from langslice.model import open_checkpoint

checkpoint = open_checkpoint("mini")

# langslice.model.Checkpoint
print(checkpoint.config["model_type"], len(checkpoint.shards))  # a Checkpoint

# langslice.model.TensorEntry
entry = next(iter(checkpoint.tensors.values()))  # a TensorEntry
print(entry.name, entry.dtype, entry.shape)

# langslice.model.read_anatomy
from langslice.model import read_anatomy

anatomy = read_anatomy(checkpoint)

# langslice.model.Rule
from langslice.model import Rule

rule = Rule("vocabulary", r"embed_tokens", ("vocab", "hidden"), "linear")

# langslice.model.Family
from langslice.model import Family

family = Family(("my_model",), (rule,))

# langslice.planning.PlanOptions
from langslice.planning import PlanOptions

plan = langslice.plan("mini", options=PlanOptions(languages="ko", coverage=0.99))

# langslice.planning.TensorPlan
tensor = next(iter(plan.tensors.values()))  # a TensorPlan
print(tensor.action, tensor.axes, tensor.reason)

# langslice.planning.save_plan
from langslice.planning import save_plan

save_plan(plan, Path("ko-plan.json"))

# langslice.recipes.load_recipe
from langslice.recipes import load_recipe

recipe = load_recipe({"model": "mini", "slice": {"languages": "ko"}, "verify": False})

# langslice.recipes.Recipe
print(recipe.document["slice"])  # a Recipe

# langslice.recipes.preview
from langslice.recipes import preview

steps = preview({"model": "mini", "slice": {"languages": "ko"}, "verify": False}, "not-yet")

# langslice.recipes.RunResult
print(steps.folder)  # a RunResult

# langslice.recipes.Done
print([step.name for step in steps.steps])  # each is Done, or would be

# langslice.recipes.recipe_schema
from langslice.recipes import recipe_schema

print(sorted(recipe_schema()["properties"]))

# langslice.reporting.collect_report
from langslice.reporting import collect_report

report = collect_report("ko-en")

# langslice.restoration.RestoreOptions
from langslice.restoration import RestoreOptions

restored = langslice.restore("healed", "restored-again", options=RestoreOptions(base="mini", verify=False))

# langslice.restoration.RestoreResult
print(restored.rows, restored.tensors)  # a RestoreResult

# langslice.scoring.ScoreSettings
from langslice.scoring import ScoreSettings

settings = ScoreSettings(seeds=(0,), samples=4, max_tokens=32)

# langslice.scoring.compute
from langslice.scoring import compute

heads = compute(checkpoint, "heads", "gradient", {"ko": heldout_text("ko")}, settings=settings)

# langslice.scoring.Scores
heads.save("heads.parquet")  # Scores

# langslice.scoring.load_scores
from langslice.scoring import load_scores

heads = load_scores(Path("heads.parquet"), checkpoint)

# langslice.scoring.heads_to_drop
from langslice.scoring import heads_to_drop

dropped = heads_to_drop(heads, anatomy, 0.25)

# langslice.scoring.neurons_to_drop
from langslice.scoring import neurons_to_drop

neurons = neurons_to_drop(compute(checkpoint, "neurons", "l2"), anatomy, 0.1)

# langslice.scoring.layers_to_drop
from langslice.scoring import layers_to_drop

layer_scores = compute(checkpoint, "layers", "angular", {"ko": heldout_text("ko")}, settings=settings)
print(layers_to_drop(layer_scores, anatomy, 1))

# langslice.scoring.language_neurons_to_drop
from langslice.scoring import language_neurons_to_drop

by_language = {code: heldout_text(code) for code in ("ko", "en")}
lape = compute(checkpoint, "neurons", "lape", by_language, settings=settings)
print(language_neurons_to_drop(lape, anatomy, ["ko"]).keys())

# langslice.scoring.language_heads_to_drop
from langslice.scoring import language_heads_to_drop

lahis = compute(checkpoint, "heads", "lahis", by_language, settings=settings)
print(language_heads_to_drop(lahis, anatomy, ["ko"]).keys())

# langslice.scoring.language_neurons
from langslice.scoring import language_neurons

print(language_neurons(lape, anatomy)["ko"].keys())  # Korean's own, by stack and layer

# langslice.scoring.language_heads
from langslice.scoring import language_heads

print(language_heads(lahis, anatomy, high=0.1)["ko"].keys())

# langslice.scoring.random_control
from langslice.scoring import random_control

control = random_control(dropped, anatomy, seed=0)

# langslice.scoring.pruning_costs
from langslice.scoring import pruning_costs

costs = pruning_costs(checkpoint, {"ko": heldout_text("ko")}, heads=dropped, seeds=(0,), samples=4, max_tokens=32)

# langslice.scoring.Cost
print(costs[0].whole, costs[0].chosen, costs[0].control)  # a Cost

# langslice.slicing.CountOptions
from langslice.slicing import CountOptions

counted = langslice.count("mini", options=CountOptions(corpus="ko.txt"))

# langslice.slicing.InspectOptions
from langslice.slicing import InspectOptions

inspection = langslice.inspect("mini", options=InspectOptions(languages="ko"))

# langslice.slicing.Inspection
print(inspection.parameters, inspection.scripts)  # an Inspection

# langslice.slicing.ModelPart
print(inspection.parts[0].name, inspection.parts[0].size_bytes)  # a ModelPart

# langslice.slicing.Saving
print(inspection.savings[0].languages, inspection.savings[0].rows)  # a Saving

# langslice.slicing.MaskOptions
from langslice.slicing import MaskOptions

langslice.mask("mini", "masked-again", options=MaskOptions(drop_heads="0:0", verify=False))

# langslice.slicing.SliceOptions
from langslice.slicing import SliceOptions

langslice.slice("mini", "sliced-again", options=SliceOptions(languages="ko", verify=False))

# langslice.slicing.plan_upload
from langslice.slicing import plan_upload

upload = plan_upload(Path("ko-en"), "org/name")

# langslice.slicing.Upload
print(upload.files, upload.licence)  # an Upload

# langslice.sparsity.SparsityRequest
from langslice.sparsity import SparsityRequest

request = SparsityRequest(0.3, score="magnitude")

# langslice.sparsity.prune_copy
from langslice.sparsity import prune_copy

pruned = prune_copy("mini", "pruned", request)

# langslice.sparsity.SparsityReport
print(pruned.zeros, "of", pruned.size)  # a SparsityReport

# langslice.sparsity.TensorSparsity
print(next(iter(pruned.tensors.values())).achieved)  # a TensorSparsity

# langslice.sparsity.sparsify
from langslice.sparsity import sparsify

sparsify(Path("sliced-again"), request)

# langslice.sparsity.structured_scores
from langslice.sparsity import structured_scores

importance = structured_scores(mini_model_path(), translations)

# langslice.sparsity.StructuredScores
print(importance.neurons.keys(), importance.heads.keys())  # StructuredScores

# langslice.sweeps.Sweep
grid = langslice.sweep(
    {"model": "mini", "slice": {"languages": "ko", "max_vocab": [1500, 2000]},
     "evaluate": {"tasks": "perplexity", "languages": "ko", "limit": 2}},
    "grid",
)  # fmt: skip
print(grid.folder, len(grid.runs))  # a Sweep

# langslice.tokenizer.open_tokenizer
tokenizer = open_tokenizer(mini_model_path())

# langslice.tokenizer.SourceTokenizer
ids = tokenizer.encode(["Good morning"])[0]  # of a SourceTokenizer

# langslice.tokenizer.close
from langslice.tokenizer import close

closure = close(tokenizer, ids)

# langslice.tokenizer.write_tokenizer
from langslice.tokenizer import write_tokenizer

Path("tokenizer").mkdir()
write_tokenizer(tokenizer, closure.kept, Path("tokenizer"))

# langslice.budgets.FitOptions
from langslice.budgets import FitOptions

budget = FitOptions(languages="ko", size="7MB", axes="neurons", loss_lines=4, checks=1)
fitted = langslice.fit("mini", "fitted-ko", options=budget)

# langslice.budgets.Fit
print(fitted.notes[0])  # a Fit

# langslice.budgets.Trial
print(fitted.chosen.worst, fitted.chosen.takes["size"])  # a Trial

# langslice.budgets.Cut
print(fitted.chosen.cut.neurons)  # a Cut

# langslice.tradeoffs.TradeoffOptions
from langslice.tradeoffs import TradeoffOptions

tradeoff = langslice.tradeoff("mini", options=TradeoffOptions(languages="ko", sizes="2000", loss_lines=4))

# langslice.tradeoffs.Tradeoff
print(tradeoff.before)  # a Tradeoff

# langslice.tradeoffs.Rung
rung = tradeoff.rungs[0]  # a Rung
print(rung.rows, rung.size_bytes)

# langslice.tradeoffs.Loss
loss = rung.loss["ko"]  # a Loss
print(loss.before, loss.after, loss.value)

# langslice.tradeoffs.TrialOptions
from langslice.tradeoffs import TrialOptions

asked = TrialOptions(languages="ko", sizes="2000")

# langslice.tradeoffs.try_text
from langslice.tradeoffs import try_text

trial = try_text("mini", "만나서 반갑습니다", options=asked)

# langslice.tradeoffs.TextTrial
print([piece.text for piece in trial.readings[0].pieces], trial.readings[0].answer)  # a TextTrial

# langslice.verification.Verification
verification = langslice.verify("mini", "ko-en")
assert verification.passed  # a Verification

# langslice.verification.Check
print([check.name for check in verification.checks])  # each is a Check

# langslice.verification.TextComparison
print(verification.texts[0].covered, verification.texts[0].growth)  # a TextComparison

# langslice.steering.Steering
steering = langslice.find_features("mini", "to-korean", steer="ko").steering  # a Steering
print(steering.language, steering.sources, sorted(steering.vectors))

# langslice.steering.load_steering
from langslice.steering import load_steering

steering = load_steering("to-korean")

# langslice.steering.apply_steering
from transformers import AutoModelForCausalLM

from langslice.steering import apply_steering

model = AutoModelForCausalLM.from_pretrained(mini_model_path())
with apply_steering(model, "to-korean", strength=0.5):
    model.generate(max_new_tokens=4)
