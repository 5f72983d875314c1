"""An example of every function of `langslice`, in an order in which each finds what it reads. The tests run them.

ko.txt, en.txt and fr-en.tsv are text of your own: a sentence per line, or two with a tab between them.
"""

import transformers

import langslice
from langslice.mini import mini_model_path

# inspect
found = langslice.inspect("mini", languages="ko,en")

# plan
plan = langslice.plan("mini", languages=["ko", "en"], coverage=0.999)
plan.save("plan.json")

# load_plan
plan = langslice.load_plan("plan.json")

# slice
result = langslice.slice("mini", "ko-en", plan=plan)
model, tokenizer = result.load()

# mask
langslice.mask("mini", "masked", drop_heads="0:0,1", verify=False)

# verify
verification = langslice.verify("mini", "ko-en", text="ko.txt")

# tradeoff
costs = langslice.tradeoff("mini", languages=["ko", "en"], sizes=[4000], loss_lines=4)

# fit
fitted = langslice.fit("mini", "fitted", languages=["ko", "en"], size="7MB", axes="layers", loss_lines=4, checks=1)
print(fitted.chosen.cut.text())

# count
counts = langslice.count("mini", "ko.txt")
counts.save("counts.parquet")

# score
scores = langslice.score("mini", "heads", "l2")

# make_demonstrations
demonstrations = langslice.make_demonstrations("fr-en.jsonl", parallel="fr-en.tsv", shots=2, count=4)

# find_features
langslice.make_demonstrations("en.jsonl", corpus="en.txt", languages="en", shots=2, count=4)
features = langslice.find_features("mini", "features", demos="fr-en.jsonl", against="en.jsonl", pictures=False)

# evaluate
evaluation = langslice.evaluate("mini", "ko-en", languages=["ko", "en"], limit=4)

# heal
langslice.heal("ko-en", "healed", corpus="ko.txt", steps=2, seq_length=32)

# restore
langslice.restore("healed", "restored", base="mini", verify=False)

# shrink
model = transformers.AutoModelForCausalLM.from_pretrained(mini_model_path())
tokenizer = transformers.AutoTokenizer.from_pretrained(mini_model_path())
with langslice.shrink(model, tokenizer, texts=["Good morning"], verify=False) as (small, small_tokenizer):
    pass  # train `small`

# export
langslice.export(
    "ko-en", "gguf", to="gguf", pre="qwen35"
)  # the packaged tokenizer is none that llama.cpp knows by its hash

# report
langslice.report("ko-en", scores=[])

# init
recipe = langslice.init("mini", "ko,en")

# run
langslice.run(
    {"model": "mini", "count": {"ko": {"corpus": "ko.txt"}}, "slice": {"counts": "$ko"}, "verify": False}, "work"
)

# sweep
langslice.sweep(
    {"model": "mini", "slice": {"languages": "ko", "max_vocab": [1500, 2000]},
     "evaluate": {"tasks": "perplexity", "languages": "ko", "limit": 2}},
    "sweep",
)  # fmt: skip
