"""Static embeddings, sparse encoders and routers: kept text is embedded as before, bit for bit."""

from __future__ import annotations

import json
import shutil
import warnings

import numpy as np
import pytest

import langslice
from langslice.errors import LangsliceError
from langslice.mini import mini_model_path

TEXTS = ["The weather is nice today.", "오늘 날씨가 좋습니다.", "A small test of 42 things!", "Sie", "서울 Seoul"]
CHOICE = {"languages": "ko,en"}
ROWS = 12288

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def save_tokenizer(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(mini_model_path() / name, folder / name)


def masked_model(folder):
    import torch
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    BertForMaskedLM(BertConfig(vocab_size=ROWS, **sizes)).save_pretrained(folder)
    save_tokenizer(folder)


def covered(result):
    """Sample texts of which every token is kept."""
    from tokenizers import Tokenizer

    tokenizer, kept = Tokenizer.from_file(str(mini_model_path() / "tokenizer.json")), set(result.plan.kept.tolist())
    texts = [text for text in TEXTS if set(tokenizer.encode(text).ids) <= kept]
    assert len(texts) >= 4
    return texts


def static_folder(folder):
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import StaticEmbedding
    from tokenizers import Tokenizer

    torch.manual_seed(0)
    tokenizer = Tokenizer.from_file(str(mini_model_path() / "tokenizer.json"))
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=16)], device="cpu").save(str(folder))


def model2vec_folder(folder, *, mapped=False, weighted=False):
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    torch.manual_seed(0)
    tensors = {"embeddings": torch.randn(300 if mapped else ROWS, 16)}
    if mapped:
        tensors["mapping"] = torch.randint(0, 300, (ROWS,))
    if weighted:
        tensors["weights"] = torch.rand(ROWS)
    save_file(tensors, folder / "model.safetensors")
    shutil.copyfile(mini_model_path() / "tokenizer.json", folder / "tokenizer.json")
    config = {"model_type": "model2vec", "architectures": ["StaticModel"], "hidden_dim": 16, "normalize": True}
    (folder / "config.json").write_text(json.dumps(config))
    module = {"idx": 0, "name": "0", "path": ".", "type": "sentence_transformers.models.StaticEmbedding"}
    (folder / "modules.json").write_text(json.dumps([module]))


@pytest.mark.parametrize(
    "make",
    [
        static_folder,
        model2vec_folder,
        lambda folder: model2vec_folder(folder, mapped=True),
        lambda folder: model2vec_folder(folder, mapped=True, weighted=True),
        lambda folder: model2vec_folder(folder, weighted=True),
    ],
    ids=["static", "model2vec", "mapped", "mapped and weighted", "weighted"],
)
def test_static_embeddings(tmp_path, make):
    from sentence_transformers import SentenceTransformer

    source, out = tmp_path / "source", tmp_path / "out"
    make(source)
    result = langslice.slice(source, out, **CHOICE)
    assert result.verification.passed
    assert len(result.plan.kept) < 0.7 * ROWS
    assert (out / "model.safetensors").stat().st_size < 0.75 * (source / "model.safetensors").stat().st_size
    before, after = (SentenceTransformer(str(folder), device="cpu").encode(covered(result)) for folder in (source, out))
    assert np.array_equal(before, after)
    assert langslice.verify(source, out).passed


def test_model2vec_without_modules(tmp_path):
    source = tmp_path / "source"
    model2vec_folder(source)
    (source / "modules.json").unlink()
    result = langslice.slice(source, tmp_path / "out", **CHOICE)
    from safetensors.torch import load_file

    before, after = (load_file(folder / "model.safetensors")["embeddings"] for folder in (source, tmp_path / "out"))
    assert np.array_equal(after, before[result.plan.new_to_old])


def test_a_wrong_row_of_a_table_is_noticed(tmp_path):
    from safetensors.torch import load_file, save_file

    source, out = tmp_path / "source", tmp_path / "out"
    static_folder(source)
    langslice.slice(source, out, **CHOICE)
    tensors = load_file(out / "model.safetensors")
    tensors["embedding.weight"] += 1
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    assert not langslice.verify(source, out).passed


def sparse_vectors(folder, texts, kept=None):
    """Rows of a sparse encoder's vectors; of the kept tokens, where they are given."""
    from sentence_transformers import SparseEncoder

    model = SparseEncoder(str(folder), device="cpu")
    queries = model.encode_query(texts, convert_to_sparse_tensor=False).numpy()
    documents = model.encode_document(texts, convert_to_sparse_tensor=False).numpy()
    return [vectors if kept is None else vectors[:, kept] for vectors in (queries, documents)]


def test_a_sparse_encoder(tmp_path):
    from sentence_transformers import SparseEncoder
    from sentence_transformers.sparse_encoder.models import MLMTransformer, SpladePooling

    masked_model(tmp_path / "encoder")
    source, out = tmp_path / "source", tmp_path / "out"
    modules = [MLMTransformer(str(tmp_path / "encoder")), SpladePooling("max", embedding_dimension=ROWS)]
    SparseEncoder(modules=modules, device="cpu").save(str(source))
    result = langslice.slice(source, out, **CHOICE)
    assert result.verification.passed
    rows = len(result.plan.new_to_old)
    assert json.loads((out / "1_SpladePooling/config.json").read_text())["embedding_dimension"] == rows
    before, after = sparse_vectors(source, covered(result), result.plan.kept), sparse_vectors(out, covered(result))
    # The head's product has another width, and may be summed in another order.
    for left, right in zip(before, after, strict=True):
        assert right.shape[1] == rows
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)


def routed_folder(folder, encoder):
    import torch
    from sentence_transformers import SparseEncoder
    from sentence_transformers.models import Router
    from sentence_transformers.sparse_encoder.models import MLMTransformer, SparseStaticEmbedding, SpladePooling

    masked_model(encoder)
    document = MLMTransformer(str(encoder))
    torch.manual_seed(1)
    query = SparseStaticEmbedding(tokenizer=document.tokenizer, weight=torch.rand(ROWS), frozen=True)
    router = Router.for_query_document(query_modules=[query], document_modules=[document, SpladePooling("max")])
    SparseEncoder(modules=[router], device="cpu").save(str(folder))


def test_a_router_with_weights_of_tokens(tmp_path):
    """Documents go through the transformer, queries through one weight a token, with a tokenizer of their own."""
    source, out = tmp_path / "source", tmp_path / "out"
    routed_folder(source, tmp_path / "encoder")
    names = json.loads((source / "router_config.json").read_text())["types"]
    table = next(name for name in names if name.endswith("SparseStaticEmbedding"))
    tokens = list(json.loads((source / table / "tokenizer.json").read_text())["model"]["vocab"])
    tokens = [token[0] if isinstance(token, list) else token for token in tokens]
    weights = {token: at / 7 for at, token in enumerate(tokens)}
    (source / "idf.json").write_text(json.dumps(weights))
    lines = [f"{token}\t{value}" for token, value in weights.items() if "\n" not in token and "\t" not in token]
    (source / "query_token_weights.txt").write_text("\n".join(lines))
    result = langslice.slice(source, out, **CHOICE)
    assert result.verification.passed
    before, after = sparse_vectors(source, covered(result), result.plan.kept), sparse_vectors(out, covered(result))
    assert np.array_equal(before[0], after[0])
    np.testing.assert_allclose(before[1], after[1], rtol=1e-5, atol=1e-6)
    kept = set(result.plan.tokens)
    assert json.loads((out / "idf.json").read_text()) == {t: value for t, value in weights.items() if t in kept}
    after_lines = (out / "query_token_weights.txt").read_text().split("\n")
    assert after_lines == [line for line in lines if line.rpartition("\t")[0] in kept]
    assert 0 < len(after_lines) < len(lines)


def test_a_router_of_two_vocabularies_is_refused(tmp_path):
    source = tmp_path / "source"
    routed_folder(source, tmp_path / "encoder")
    names = json.loads((source / "router_config.json").read_text())["types"]
    path = source / next(name for name in names if name.endswith("SparseStaticEmbedding")) / "tokenizer.json"
    first = json.loads(path.read_text())["added_tokens"][0]["content"]
    path.write_text(path.read_text().replace(json.dumps(first), '"<other>"'))
    with pytest.raises(LangsliceError, match="is not that of the model: they differ from id"):
        langslice.plan(source, **CHOICE)


def test_modules_with_words_of_their_own_are_refused(tmp_path):
    source = tmp_path / "source"
    static_folder(source)
    modules = json.loads((source / "modules.json").read_text())
    modules.append({"idx": 1, "name": "1", "path": "1_WordWeights", "type": "sentence_transformers.models.WordWeights"})
    (source / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(LangsliceError, match="module `WordWeights` is not known"):
        langslice.plan(source, **CHOICE)
