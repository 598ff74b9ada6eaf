"""What Hugging Face's `tokenizers` makes of a corpus and of the tokenizers trained here.

golden.py IN OUT: IN holds {corpus, texts, cases: [{kind, vocabulary, minFrequency, tokenizer}]}; OUT gets the same with, per case, the model that the
library's own trainer learns from the corpus, and for each text the ids and the decoded text that the library gives with the given tokenizer.json.
"""
import json
import sys
import tempfile
from importlib.metadata import version

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers


def train(case, corpus_file):
    options = dict(vocab_size=case["vocabulary"], min_frequency=case["minFrequency"], show_progress=False)
    special = [token["content"] for token in json.loads(case["tokenizer"])["added_tokens"]]
    if case["kind"] == "bpe":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **options)
    else:
        tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        trainer = trainers.WordLevelTrainer(special_tokens=special, **options)
    tokenizer.train([corpus_file], trainer)
    return json.loads(tokenizer.to_str())


source, target = sys.argv[1:]
with open(source, encoding="utf8") as file:
    given = json.load(file)
with tempfile.NamedTemporaryFile("w", encoding="utf8", newline="", suffix=".txt") as corpus:
    corpus.write(given["corpus"])
    corpus.flush()
    cases = []
    for case in given["cases"]:
        loaded = Tokenizer.from_str(case["tokenizer"])
        trained = train(case, corpus.name)
        del case["tokenizer"]
        encodings = []
        for text in given["texts"]:
            ids = loaded.encode(text).ids
            encodings.append({"ids": ids, "decoded": loaded.decode(ids)})
        cases.append({**case, "trained": trained, "encodings": encodings})
result = {
    "made": f"bench/tokenizer/golden.ts with tokenizers {version('tokenizers')}",
    "corpus": given["corpus"],
    "texts": given["texts"],
    "cases": cases,
}
with open(target, "w", encoding="utf8") as file:
    json.dump(result, file, ensure_ascii=True, separators=(",", ":"))
    file.write("\n")
