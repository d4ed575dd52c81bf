"""What is tuned in torch is what the graph computes."""

import json
import shutil

import numpy as np
import pytest
from conftest import CARD, CONFIG, TAXONOMY, VOCABULARY
from typer.testing import CliRunner

torch = pytest.importorskip("torch", reason="the extra `finetune` is not installed")
pytest.importorskip("transformers", reason="the extra `finetune` is not installed")

from severity_clf.bundle import write_bundle  # noqa: E402
from severity_clf.cli import app  # noqa: E402
from severity_clf.fit import finetune as module  # noqa: E402
from severity_clf.fit.export import export_encoder, window_tokenizer  # noqa: E402
from severity_clf.fit.finetune import Corpus, Net, finetune, forward, loss_of, tuned_heads  # noqa: E402
from severity_clf.fit.graph import POOLINGS, encoder_graph, with_heads  # noqa: E402
from severity_clf.fit.heads import Heads, interval_loss  # noqa: E402
from severity_clf.model import SeverityModel  # noqa: E402
from severity_clf.records import Record, label_array  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")  # torch and transformers have their own
SMALL = {"window": 16, "overlap": 6, "prompt_tokens": 4}
TEXTS = ["the cat sat on a mat and it was good", "how to make tea", "rain " * 40, "the dog ran far and it was worse"]


def records(n=48):
    """Texts that say how bad they are."""
    word = ("good", "bad", "worse")
    return [
        Record(str(row), f"the dog was {word[row % 3]} on a day", {"overall": (row % 3, row % 3)}, str(row), "made")
        for row in range(n)
    ]


def net_of(encoder_dir, pooling="mean"):
    sep = VOCABULARY.index("[SEP]")
    net = Net(module._bert(encoder_dir, None), len(TAXONOMY.domains), TAXONOMY.top, 1, sep, pooling)
    torch.manual_seed(1)
    for parameter in (net.weight, net.table, net.first):
        parameter.data = torch.randn_like(parameter)
    return net.eval()


@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_tuned_net_gives_the_probabilities_of_the_graph(encoder_dir, tmp_path, monkeypatch, pooling):
    """Another pooling, another hash or another worst window in training would be a model that never ships."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)  # float32, as the graph that is compared
    encoder_dir = shutil.copytree(encoder_dir, tmp_path / "encoder")
    (encoder_dir / "1_Pooling").mkdir()
    (encoder_dir / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": pooling}))
    net = net_of(encoder_dir, pooling)
    table = net.table.detach().numpy()[:-1]
    heads = Heads.rounded(net.weight.detach().numpy(), table, net.thresholds().detach().numpy())
    net.table.data[:-1] = torch.from_numpy(heads.table * heads.scale)
    encoder = encoder_graph(encoder_dir, int8=False)
    graph = with_heads(encoder, heads).SerializeToString()
    write_bundle(tmp_path / "float", graph, window_tokenizer(encoder_dir, 16, 6), CARD)
    model = SeverityModel(tmp_path / "float", threads=1)
    rows = [Record(str(row), text, {}, "g", "", "how to") for row, text in enumerate(TEXTS)]
    corpus = Corpus(model, encoder, rows)
    for prompts in (None, ["how to"] * len(rows)):
        (batch,) = corpus.batches(len(rows), 99, float(prompts is not None), np.random.default_rng(0))
        exceed, _ = forward(net, batch, torch.zeros(len(rows), 2))
        wanted = model.score(TEXTS, prompts).exceed[batch.rows.numpy()]
        np.testing.assert_allclose(exceed.detach().numpy(), wanted, atol=2e-5)


def test_the_loss_of_an_overall_label_is_that_of_the_heads():
    """One likelihood, wherever it is maximised."""
    latent, threshold = np.array([-1.0, 0.3, 2.0]), np.array([-0.5, 1.0])
    labels = np.array([[0, 0], [1, 2], [1, 1]])
    exceed = torch.from_numpy(1 / (1 + np.exp(threshold - latent[:, None])))[:, None]
    found = loss_of(exceed, torch.zeros(3, 0), torch.from_numpy(labels)[:, None], torch.full((3,), 1 / 3))
    assert found.item() == pytest.approx(interval_loss(latent, threshold, *labels.T)[0].mean(), abs=1e-5)


def test_the_parts_of_a_batch_are_the_batch(encoder_dir, tmp_path, monkeypatch):
    """What is read at once is a matter of speed: each text is in one part, and says there what it says in the whole."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)  # float32
    net, rows = net_of(encoder_dir), [Record(str(row), text, {}, "g") for row, text in enumerate(TEXTS)]
    write_bundle(tmp_path / "bundle", *export_encoder(encoder_dir, window=16, overlap=6), CARD)
    corpus = Corpus(SeverityModel(tmp_path / "bundle"), encoder_graph(encoder_dir), rows)
    (batch,) = corpus.batches(len(rows), 99, 0.0, np.random.default_rng(0))
    parts = list(batch.parts(3))
    assert torch.cat([part.rows for part in parts]).tolist() == batch.rows.tolist()
    assert [len(part.rows) for part in parts] == [3, 1]
    found = [torch.cat(some) for some in zip(*(forward(net, part, torch.zeros(4, 2)) for part in parts), strict=True)]
    for part, whole in zip(found, forward(net, batch, torch.zeros(4, 2)), strict=True):
        torch.testing.assert_close(part, whole, atol=1e-5, rtol=0)


def test_a_step_does_not_depend_on_its_parts(encoder_dir, tmp_path, monkeypatch):
    """Gradients of the parts add up to those of the whole, however the weights are spread: one part counts nothing."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)  # float32
    rows = records(8)
    write_bundle(tmp_path / "bundle", *export_encoder(encoder_dir, window=16, overlap=6), CARD)
    corpus = Corpus(SeverityModel(tmp_path / "bundle"), encoder_graph(encoder_dir), rows)
    (batch,) = corpus.batches(8, 99, 0.0, np.random.default_rng(0))
    labels = torch.from_numpy(label_array(rows, TAXONOMY).astype(np.int64))
    weights, sources = torch.arange(1.0, 9.0), torch.arange(8) % 2
    weights[batch.rows[:3]] = 0
    found = []
    for size in (8, 3):
        net = net_of(encoder_dir)
        net.offset = torch.nn.Parameter(torch.ones(2, 2))
        loss = module.backward(net, list(batch.parts(size)), labels, weights, sources)
        found.append((loss, [parameter.grad for parameter in net.parameters() if parameter.requires_grad]))
    (whole, gradients), (loss, parts) = found
    assert loss == pytest.approx(whole, abs=1e-5)
    for one, other in zip(gradients, parts, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_a_step_in_which_nothing_counts_teaches_nothing():
    """Rows of weight 0 are allowed; a share of nothing would be no number, and end in every weight of the model."""
    assert module.shares(torch.zeros(3)).tolist() == [0, 0, 0]
    assert module.shares(torch.tensor([0.0, 1.0, 3.0])).tolist() == [0, 0.25, 0.75]


def test_tuning_learns_and_leaves_a_directory_to_export(encoder_dir, tmp_path):
    """The worst texts end above the best, in the heads that ship."""
    finetune(
        encoder_dir,
        records(),
        TAXONOMY,
        tmp_path / "tuned",
        epochs=30,
        rates=dict.fromkeys(module.RATES, 1e-2),
        **SMALL,
    )
    graph = with_heads(encoder_graph(tmp_path / "tuned"), tuned_heads(tmp_path / "tuned")).SerializeToString()
    write_bundle(tmp_path / "bundle", graph, window_tokenizer(tmp_path / "tuned", 16, 6), CARD)
    overall = SeverityModel(tmp_path / "bundle").score([record.output for record in records(3)]).overall
    assert overall[0] < overall[1] < overall[2]
    assert not list(tmp_path.glob(".*"))  # no checkpoint is left behind
    with pytest.raises(FileExistsError, match="finished run"):
        finetune(encoder_dir, records(), TAXONOMY, tmp_path / "tuned", **SMALL)


def test_a_run_that_was_cut_off_ends_as_one_that_was_not(encoder_dir, tmp_path, monkeypatch):
    """A machine that is taken away costs the minutes since the last checkpoint, and nothing else."""
    options = {"epochs": 2, "batch": 8, "checkpoint_minutes": 0.0, **SMALL}
    finetune(encoder_dir, records(), TAXONOMY, tmp_path / "whole", **options)
    steps, save = [], module._save

    def save_thrice(*arguments):
        save(*arguments)
        steps.append(arguments)
        if len(steps) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "_save", save_thrice)
    with pytest.raises(KeyboardInterrupt):
        finetune(encoder_dir, records(), TAXONOMY, tmp_path / "cut", **options)
    assert not (tmp_path / "cut").exists()
    monkeypatch.setattr(module, "_save", save)
    finetune(encoder_dir, records(), TAXONOMY, tmp_path / "cut", **options)
    one, other = (tuned_heads(tmp_path / name) for name in ("whole", "cut"))
    np.testing.assert_allclose(one.weight, other.weight, atol=1e-6)
    np.testing.assert_array_equal(one.table, other.table)


def test_layers_can_be_left_out(encoder_dir, tmp_path):
    """Half the depth is twice the speed."""
    finetune(encoder_dir, records(8), TAXONOMY, tmp_path / "tuned", epochs=1, layers=[1], **SMALL)
    assert CONFIG["num_hidden_layers"] == 2
    names = {node.name for node in encoder_graph(tmp_path / "tuned").graph.node}
    assert "layer0/qkv" in names and "layer1/qkv" not in names


def test_no_records_is_an_error(encoder_dir, tmp_path):
    with pytest.raises(ValueError, match="no records"):
        finetune(encoder_dir, [], TAXONOMY, tmp_path / "tuned", **SMALL)


def test_train_with_finetune_ends_in_a_bundle_that_scores(tiny_bundle, tmp_path, monkeypatch):
    """The command, the encoder out of a bundle, the tuning and the way back, none of them a stand-in."""
    rows = tmp_path / "rows.jsonl"
    lines = [{"output": one.output, "labels": {"overall": one.labels["overall"][0]}} for one in records(90)]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = ["train", str(rows), "-m", str(tiny_bundle), "-o", str(tmp_path / "mine"), "--finetune", "--epochs", "1"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    mine = SeverityModel(tmp_path / "mine")
    assert "tuned" in mine.card["encoder"] and mine.card["sha256"] != SeverityModel(tiny_bundle).card["sha256"]
    assert mine.score([record.output for record in records(3)]).scored.all()
