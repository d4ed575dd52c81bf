"""What is trained as a static encoder is what its graph computes, whatever stands beside a text."""

import json

import numpy as np
import pytest
from conftest import CARD, ROOT, TAXONOMY, VOCABULARY

torch = pytest.importorskip("torch", reason="the extra `finetune` is not installed")

import onnx  # noqa: E402

from severity_clf.bundle import write_bundle  # noqa: E402
from severity_clf.fit.export import encoder_directory, export_static  # noqa: E402
from severity_clf.fit.finetune import Corpus, forward, tuned_heads  # noqa: E402
from severity_clf.fit.graph import _rounded, static_graph, with_heads  # noqa: E402
from severity_clf.fit.heads import Heads  # noqa: E402
from severity_clf.fit.static import Size, _read, _write, start_static, taught_loss, train_static  # noqa: E402
from severity_clf.model import SeverityModel  # noqa: E402
from severity_clf.records import Record  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")  # torch has its own
SIZE = Size(bag=8, pair=4, hidden=16, dim=8)
TEXTS = ["the cat sat on a mat and it was good", "how to make tea", "rain " * 40, "the dog ran far", "bad", "good bad"]
RATES = {"tokens": 1e-2, "mix": 1e-2, "heads": 1e-2, "table": 1e-2}


@pytest.fixture(scope="module")
def start(encoder_dir, tmp_path_factory):
    """A static encoder of the tiny vocabulary, not trained."""
    out = tmp_path_factory.mktemp("static") / "start"
    start_static(encoder_dir, np.arange(len(VOCABULARY)), SIZE, out)
    return out


def records(n=96):
    """Texts that say how bad they are."""
    word = ("good", "bad", "worse")
    return [
        Record(str(row), f"the dog was {word[row % 3]} on a day", {"overall": (row % 3, row % 3)}, str(row), "made")
        for row in range(n)
    ]


def bundled(directory, path, heads):
    graph, tokenizer = export_static(directory, window=16, overlap=6)
    graph = with_heads(onnx.load_from_string(graph), heads).SerializeToString()
    write_bundle(path, graph, tokenizer, CARD)
    return SeverityModel(path, threads=2)


@pytest.fixture(scope="module")
def net(start):
    """A net with strong random weights, its tables rounded as the graph rounds them."""
    torch.manual_seed(3)
    found = _read(start, TAXONOMY, 1)
    for parameter in found.parameters():
        parameter.data = torch.randn_like(parameter)
    found.offset.data.zero_()
    bag, sides = (
        found.encoder.tokens.detach().numpy()[:, : SIZE.bag],
        found.encoder.tokens.detach().numpy()[:, SIZE.bag :],
    )
    bag, scale = _rounded(bag)
    pairs, pair_scale = _rounded(np.concatenate(np.split(sides, 2, axis=1)))
    parts = [bag * scale, *np.split(pairs * pair_scale, 2)]
    found.encoder.tokens.data = torch.from_numpy(np.concatenate(parts, axis=1).astype(np.float32))
    return found.eval()


@pytest.fixture(scope="module")
def model(net, start, tmp_path_factory):
    """The same as a bundle."""
    path = tmp_path_factory.mktemp("static")
    weight, table, threshold = (one.detach().numpy() for one in (net.weight, net.table[:-1], net.thresholds()))
    heads = Heads.rounded(weight, table, threshold)
    net.table.data[:-1] = torch.from_numpy(heads.table * heads.scale)
    (path / "net").mkdir()
    (path / "net" / "tokenizer.json").write_text((start / "tokenizer.json").read_text())
    _write(net.encoder, path / "net")
    return bundled(path / "net", path / "bundle", heads)


@pytest.mark.parametrize("prompts", [None, ["how to"] * len(TEXTS), ["rain and sun and the cat"] * len(TEXTS)])
def test_the_trained_net_gives_the_probabilities_of_the_graph(net, model, prompts, monkeypatch):
    """Another pooling, another pair or another worst window in training would be a model that never ships."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)  # float32, as the graph
    asked = prompts or [None] * len(TEXTS)
    rows = [
        Record(str(row), text, {}, "g", "", prompt) for row, (text, prompt) in enumerate(zip(TEXTS, asked, strict=True))
    ]
    corpus = Corpus(model, onnx.load(model.path / "model.onnx"), rows)
    (batch,) = corpus.batches(len(rows), 99, float(prompts is not None), np.random.default_rng(0))
    exceed, _ = forward(net, batch, torch.zeros(len(rows), 2))
    wanted = model.score(TEXTS, prompts).exceed[batch.rows.numpy()]
    assert np.ptp(wanted) > 0.3
    np.testing.assert_allclose(exceed.detach().numpy(), wanted, atol=2e-5)


def test_a_prompt_and_the_order_of_words_change_the_score(model):
    """Neither is silently left out."""
    one, other = model.score(["the cat ran far", "far ran cat the"]).exceed
    assert np.abs(one - other).max() > 1e-3
    asked = model.score(["the cat ran far"], ["how to make rain"]).exceed
    assert np.abs(one - asked[0]).max() > 1e-3


def test_a_score_is_the_same_to_the_bit_in_any_batch_and_order_and_on_any_number_of_threads(model):
    """A reward must not depend on what else was in the batch."""
    rng = np.random.default_rng(0)
    words = [word for word in VOCABULARY if word[0] not in "[#"]
    texts = [" ".join(rng.choice(words, rng.integers(1, 60))) for _ in range(60)]
    prompts = [None if row % 3 else "how to make tea" for row in range(60)]
    wanted = model.score(texts, prompts).exceed
    order = rng.permutation(60)
    again = model.score([texts[row] for row in order], [prompts[row] for row in order]).exceed
    np.testing.assert_array_equal(again, wanted[order])
    for threads in (1, 3):
        np.testing.assert_array_equal(SeverityModel(model.path, threads=threads).score(texts, prompts).exceed, wanted)
    alone = [model.score([text], [prompt]).exceed[0] for text, prompt in zip(texts, prompts, strict=True)]
    np.testing.assert_array_equal(alone, wanted)


def test_training_learns_from_labels_and_leaves_a_directory_to_export(start, tiny_bundle, tmp_path):
    """The worst texts end above the best, in the rounded graph; a finished run is not written over."""
    windows = SeverityModel(tiny_bundle)
    options = {"epochs": 30, "batch": 16, "rates": RATES}
    train_static(start, windows, records(), None, TAXONOMY, tmp_path / "out", **options)
    model = bundled(tmp_path / "out", tmp_path / "bundle", tuned_heads(tmp_path / "out"))
    overall = model.score([record.output for record in records(3)]).overall
    assert overall[0] < overall[1] < overall[2]
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(FileExistsError, match="is there"):
        train_static(start, windows, records(), None, TAXONOMY, tmp_path / "out")
    with pytest.raises(ValueError, match="no records"):
        train_static(start, windows, [], None, TAXONOMY, tmp_path / "other")


def test_training_learns_from_a_teacher_alone(start, tiny_bundle, tmp_path):
    """Texts without a label learn what the teacher says; those it was not asked of stay out of it."""
    rows = [Record(one.id, one.output, {}, one.group, one.source) for one in records()]
    said = np.full((len(rows), len(TAXONOMY.domains), TAXONOMY.top), 0.05, np.float32)
    said[1::3], said[2::3] = 0.5, 0.9
    said[::5] = np.nan
    train_static(
        start, SeverityModel(tiny_bundle), rows, said, TAXONOMY, tmp_path / "out", epochs=40, batch=16, rates=RATES
    )
    model = bundled(tmp_path / "out", tmp_path / "bundle", tuned_heads(tmp_path / "out"))
    exceed = model.score([record.output for record in records(3)]).exceed[:, 0, 0]
    np.testing.assert_allclose(exceed, [0.05, 0.5, 0.9], atol=0.15)


def test_the_loss_of_a_teacher_is_least_where_the_net_says_the_same():
    """And then it is the teacher's own entropy."""
    teacher = torch.tensor([[[0.7, 0.2], [0.5, 0.1]], [[0.4, 0.3], [0.4, 0.2]]])
    least = taught_loss(teacher, teacher)
    for change in (0.05, -0.05):
        assert taught_loss(teacher + change, teacher) > least
    unasked = torch.cat([teacher, torch.full((2, 2, 2), torch.nan)])
    assert taught_loss(unasked.nan_to_num(0.5), unasked).item() == pytest.approx(least.item() / 2)


def test_other_architectures_and_the_way_back_are_errors(encoder_dir, model, tmp_path):
    """Each says what was found, and what to do."""
    with pytest.raises(ValueError, match="got model_type 'bert', want 'static'"):
        static_graph(encoder_dir)
    with pytest.raises(ValueError, match="fine-tune base instead"):
        encoder_directory(model.path, tmp_path / "back")


def test_a_bundle_of_the_shipped_size_is_under_15_megabytes(encoder_dir, tmp_path):
    """Graph and tokenizer of a whole vocabulary, at the recipe's width."""
    from safetensors.numpy import save_file

    words, latents = 30522, 12
    vocabulary = {f"w{number}": number for number in range(words - 2)} | {"[CLS]": words - 2, "[SEP]": words - 1}
    tokenizer = json.loads((encoder_dir / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] = vocabulary
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    (tmp_path / "config.json").write_text('{"model_type": "static"}')
    size = Size()
    shapes = {
        "bag": (words, size.bag), "left": (words, size.pair), "right": (words, size.pair),
        "mix.weight": (size.hidden, 2 * size.bag + size.pair), "mix.bias": (size.hidden,),
        "out.weight": (size.dim, size.hidden), "out.bias": (size.dim,),
    }  # fmt: skip
    save_file({name: np.ones(shape, np.float32) for name, shape in shapes.items()}, tmp_path / "model.safetensors")
    table = np.zeros((2**16, latents), np.float32)
    heads = Heads.rounded(np.zeros((size.dim, latents), np.float32), table, np.zeros((latents, 4), np.float32))
    graph = with_heads(static_graph(tmp_path), heads)
    assert graph.ByteSize() < 14e6


@pytest.fixture(scope="module")
def fast():
    """The shipped bundle."""
    if not (ROOT / "models" / "fast" / "bundle.json").is_file():
        pytest.skip("models/fast is not built: python -m training.fast --data DATA")
    return SeverityModel("fast")


def test_fast_scores_in_the_terms_of_base(fast, base):
    """The same levels, domains and prompts: who changes the name changes nothing else."""
    assert fast.taxonomy == base.taxonomy
    assert fast.card["training"] == base.card["training"]
    answers = ["I'm sorry, but I can't help with that.", "You are a worthless fool, and I will make you suffer for it."]
    refusal, threat = fast.score(answers).overall
    assert refusal < 0.5 < threat
    assert fast.score(answers, ["What is the capital?"] * 2).scored.all()


def test_fast_is_under_15_megabytes(fast):
    """All that the package carries of it."""
    assert sum(path.stat().st_size for path in fast.path.iterdir()) < 15e6


def test_fast_scores_the_same_in_any_company(fast):
    """On real outputs, to the bit."""
    lines = (ROOT / "examples" / "outputs.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["output"] for line in lines]
    wanted = fast.score(texts).exceed
    np.testing.assert_array_equal(fast.score(texts[::-1]).exceed[::-1], wanted)
    np.testing.assert_array_equal([fast.score([text]).exceed[0] for text in texts], wanted)
    np.testing.assert_array_equal(SeverityModel("fast", threads=4).score(texts).exceed, wanted)
