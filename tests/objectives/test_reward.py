"""Scores of answers: Bradley and Terry's loss in float64, what is saved and read again, and what is measured."""

import json
import math

import numpy as np
import pytest
import torch
from peft import AutoPeftModelForSequenceClassification
from torch.nn.functional import logsigmoid
from transformers import AutoModelForSequenceClassification

from danlu.core.errors import UserError
from danlu.data.packing import Pack
from danlu.engine.hooks.delta_scores import DeltaScores
from danlu.engine.records import EvalRecord, RunFacts
from danlu.evals.held_out import Measured, held_out_loss
from danlu.generate.local import Local
from danlu.models.adapters import adapters
from danlu.models.adapters.base import Adapter
from danlu.models.builtin.tiny import ARCHITECTURES
from danlu.models.load import ModelConfig, build_model, build_scorer, load_model, plain
from danlu.models.policy import Policy
from danlu.models.scorer import Scorer, last_places
from danlu.objectives.reward import Reward
from tests.models.test_policy import assert_same_gradients
from tests.objectives.conftest import PAIRS, gradients, stir

MODEL = ModelConfig(path="builtin:tiny-llama")
ADAPTERS = {"full": {}, "freeze": {"blocks": 1}, "lora": {"rank": 4, "alpha": 4}}


def scorer_of(adapter: Adapter, config: ModelConfig = MODEL) -> Scorer:
    torch.manual_seed(0)
    scorer = Scorer(adapter.apply(build_scorer(config).float())).eval()
    stir(scorer)
    return scorer


def by_transformers(model, pack: Pack) -> torch.Tensor:
    """[S] each segment alone, as transformers scores it."""
    return torch.cat([model(input_ids=ids[None]).logits[0] for ids in pack.input_ids.split(pack.lengths)])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_packed_scores_are_those_of_each_answer_alone(architecture, judged_packs):
    config = ModelConfig(path=f"builtin:tiny-{architecture}")
    scorer = scorer_of(adapters["full"](), config)
    assert scorer.packed == Policy(build_model(config).float()).packed  # and as fast as words
    [pack] = judged_packs(PAIRS)
    torch.testing.assert_close(scorer.scores(pack), by_transformers(scorer.inner, pack), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.parametrize("settings", [{}, {"margin": 0.3, "label_smoothing": 0.1, "centering": 0.05}])
def test_loss_and_gradients_are_bradley_and_terrys_in_float64(name, settings, judged_packs):
    scorer = scorer_of(adapters[name](**ADAPTERS[name]))
    [pack] = judged_packs(PAIRS)
    loss = Reward(**settings).loss({"policy": scorer}, pack)
    assert loss.count == 3
    found = gradients(scorer.model, loss.total)

    scorer.model.double()
    scores = by_transformers(scorer.model, pack)
    delta = scores[0::2] - scores[1::2]
    margin, smooth = settings.get("margin", 0.0), settings.get("label_smoothing", 0.0)
    ahead = delta - margin - torch.tensor([0.0, 0.0, 0.5]).double()
    expected = -(1 - smooth) * logsigmoid(ahead) - smooth * logsigmoid(-ahead)
    expected = (expected + settings.get("centering", 0.0) * (scores[0::2] + scores[1::2]) ** 2).sum()
    torch.testing.assert_close(loss.total.double(), expected, rtol=1e-5, atol=0)
    assert_same_gradients(found, gradients(scorer.model, expected))
    assert any("score" in parameter for parameter in found)


def test_pairs_apart_or_together_are_one_batch(judged_packs):
    scorer = scorer_of(adapters["full"]())
    [whole], parts = judged_packs(PAIRS), judged_packs(PAIRS, tokens=2)
    assert len(parts) == 3
    together = Reward().loss({"policy": scorer}, whole)
    apart = [Reward().loss({"policy": scorer}, pack) for pack in parts]
    torch.testing.assert_close(together.total, sum(loss.total for loss in apart), rtol=1e-5, atol=0)
    assert together.count == sum(loss.count for loss in apart)


def test_every_pair_of_a_ranked_list_is_compared(judged_packs):
    scorer = scorer_of(adapters["full"]())
    rows = [{"instruction": "q", "output": ["one", "two", "three", "four"]}]
    [pack] = judged_packs(rows, format={"name": "alpaca_ranked", "answers": "all"})
    loss = Reward().loss({"policy": scorer}, pack)
    scores = scorer.scores(pack)
    expected = sum(-logsigmoid(scores[i] - scores[j]) for i in range(4) for j in range(i + 1, 4))
    assert loss.count == 6
    torch.testing.assert_close(loss.total, expected)


def test_ties_are_wrong_and_a_new_model_knows_nothing(judged_packs):
    scorer = scorer_of(adapters["full"]())
    torch.nn.init.zeros_(scorer.head.weight)
    [pack] = judged_packs(PAIRS)
    loss = Reward().loss({"policy": scorer}, pack)
    assert loss.metrics["accuracy"] == (0, 3)
    assert loss.total.item() / loss.count == pytest.approx((2 * math.log(2) + math.log(1 + math.exp(0.5))) / 3)


def test_a_new_score_layer_is_drawn_by_the_seed_and_a_tenth_of_it_by_option():
    torch.manual_seed(5)
    whole = build_scorer(MODEL).score.weight
    torch.manual_seed(5)
    tenth = build_scorer(MODEL, scale=0.1).score.weight
    assert whole.shape == (1, 64)
    assert whole.std().item() == pytest.approx(0.02, rel=0.3)
    torch.testing.assert_close(tenth, whole / 10)
    asked = []

    class Build:
        def scorer(self, scale):
            asked.append(scale)
            return Scorer(build_scorer(MODEL))

    for objective in (Reward(), Reward(downscale_weight=True)):
        objective.models(Build())
    assert asked == [1.0, 0.1]


@pytest.mark.parametrize("name", ["full", "freeze"])
def test_a_whole_model_is_one_that_transformers_scores_with_alike(name, judged_packs, tmp_path):
    adapter = adapters[name](**ADAPTERS[name])
    scorer = scorer_of(adapter)
    [pack] = judged_packs(PAIRS)
    scorer.save(adapter, tmp_path / "saved", {key: value.detach() for key, value in scorer.model.named_parameters()})
    model, found = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not found["missing_keys"]
    assert model.config.num_labels == 1
    torch.testing.assert_close(by_transformers(model.eval(), pack), scorer.scores(pack), rtol=1e-5, atol=1e-6)
    again = Scorer(build_scorer(ModelConfig(path=str(tmp_path / "saved")))).eval()
    torch.testing.assert_close(again.scores(pack), scorer.scores(pack))
    for wanted in (lambda path: build_model(ModelConfig(path=path)), Local.open):
        with pytest.raises(UserError, match="a reward model, which writes no words"):
            wanted(str(tmp_path / "saved"))


@pytest.mark.filterwarnings("ignore")  # transformers tells that the base has no score
@pytest.mark.parametrize("quantizer", [None, "nf4"])
def test_an_adapter_is_one_that_peft_scores_with_alike(quantizer, judged_packs, tmp_path):
    adapter = adapters["lora"](rank=4)
    scorer = scorer_of(adapter, ModelConfig(path=MODEL.path, quantizer=quantizer))
    [pack] = judged_packs(PAIRS)
    state = {key: value.detach() for key, value in scorer.model.named_parameters() if value.requires_grad}
    scorer.save(adapter, tmp_path / "saved", state)
    again = Scorer(load_model(tmp_path / "saved")).eval()
    torch.testing.assert_close(again.scores(pack), scorer.scores(pack))
    if quantizer is None:
        model = AutoPeftModelForSequenceClassification.from_pretrained(tmp_path / "saved", num_labels=1).eval()
        torch.testing.assert_close(by_transformers(model, pack), scorer.scores(pack), rtol=1e-5, atol=1e-6)


def test_an_adapter_is_merged_by_option_into_what_transformers_scores_with_alike(judged_packs, tmp_path):
    adapter = adapters["lora"](rank=4)
    scorer = scorer_of(adapter)
    scorer.layout = "merged"
    [pack] = judged_packs(PAIRS)
    state = {key: value.detach().clone() for key, value in scorer.model.named_parameters() if value.requires_grad}
    expected = scorer.scores(pack)
    stir(scorer.model)  # what is saved are the values given
    moved = scorer.scores(pack)
    scorer.save(adapter, tmp_path / "saved", state)
    model, found = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not found["missing_keys"]
    torch.testing.assert_close(by_transformers(model.eval(), pack), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(scorer.scores(pack), moved)


def test_a_value_head_lies_beside_a_language_models_adapter(judged_packs, tmp_path):
    adapter = adapters["lora"](rank=4)
    scorer = scorer_of(adapter)
    scorer.layout = "value_head"
    [pack] = judged_packs(PAIRS)
    state = {key: value.detach() for key, value in scorer.model.named_parameters() if value.requires_grad}
    scorer.save(adapter, tmp_path / "saved", state)
    head = torch.load(tmp_path / "saved/value_head.bin", weights_only=True)
    assert {name: list(value.shape) for name, value in head.items()} == {
        "summary.weight": [1, 64],
        "summary.bias": [1],
    }
    model = plain(load_model(tmp_path / "saved")).eval()
    assert type(model).__name__ == "LlamaForCausalLM"
    rows = pack.input_ids.split(pack.lengths)
    last = torch.stack([model.base_model(input_ids=ids[None]).last_hidden_state[0, -1] for ids in rows])
    torch.testing.assert_close((last @ head["summary.weight"].T)[:, 0], scorer.scores(pack), rtol=1e-5, atol=1e-6)


def test_a_score_is_read_where_transformers_reads_it_when_padding_ends_an_answer():
    scorer = scorer_of(adapters["full"]())
    scorer.inner.config.pad_token_id = 9
    rows = [np.array(ids) for ids in ([5, 6, 9], [9, 7, 8], [9, 9], [3, 9, 9])]
    pack = Pack.of([(ids, np.ones(len(ids), bool)) for ids in rows])
    assert last_places(pack, scorer.inner).tolist() == [1, 5, 6, 8]
    torch.testing.assert_close(scorer.scores(pack), by_transformers(scorer.inner, pack), rtol=1e-5, atol=1e-6)


def test_held_out_pairs_are_told_by_accuracy_mean_and_deviation_of_each_file_and_of_all():
    deltas = {"a": [[1.0, -1.0], [0.0]], "b": [[3.0]]}
    measure = {
        name: [
            Measured(1.0, len(some), {"accuracy": (sum(d > 0 for d in some), len(some))}, {"delta": some})
            for some in packs
        ]
        for name, packs in deltas.items()
    }
    found = held_out_loss(measure)
    assert found.metrics["accuracy"] == pytest.approx(2 / 4)
    assert found.metrics["accuracy/a"] == pytest.approx(1 / 3)
    assert found.metrics["accuracy/b"] == 1.0
    assert found.metrics["delta_mean"] == pytest.approx(np.mean([1, -1, 0, 3]))
    assert found.metrics["delta_std"] == pytest.approx(np.std([1, -1, 0, 3]))
    assert found.metrics["delta_mean/a"] == pytest.approx(0)
    assert found.metrics["delta_std/a"] == pytest.approx(np.std([1, -1, 0]))
    assert found.values == {"delta": [1.0, -1.0, 0.0, 3.0]}
    assert (found.loss, found.sources) == (3 / 4, {"a": 2 / 3, "b": 1.0})


def test_delta_scores_are_kept_by_step_and_forgotten_where_a_run_goes_back(tmp_path):
    def scores():
        return json.loads((tmp_path / "delta_scores.json").read_text())

    listener = DeltaScores().start(RunFacts(tmp_path, 10))
    for step in (0, 4, 8):
        listener.on_eval(EvalRecord(step, 0.5, values={"delta": [step + 0.5, -1.0]}))
    assert scores() == {"0": [0.5, -1.0], "4": [4.5, -1.0], "8": [8.5, -1.0]}
    DeltaScores().start(RunFacts(tmp_path, 10, step=5, measured_step=4))
    assert list(scores()) == ["0", "4"]
    listener.on_rollback(0)
    assert list(scores()) == ["0"]


def test_what_scores_is_no_language_models_adapter(tmp_path):
    adapter = adapters["lora"](rank=4)
    policy = Policy(adapter.apply(build_model(MODEL)))
    policy.save(adapter, tmp_path / "words")
    with pytest.raises(UserError, match="is a language model's adapter; give it as model.path"):
        adapters["lora"](start=str(tmp_path / "words")).apply(build_scorer(MODEL))
    merged = build_scorer(ModelConfig(path=str(tmp_path / "words")))
    assert type(merged).__name__ == "LlamaForSequenceClassification"
