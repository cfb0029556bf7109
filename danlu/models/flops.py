"""How much arithmetic a training step needs, for model flops utilisation (MFU)."""

from danlu.models.policy import Policy
from danlu.models.quantized_linear import packed_weights


def flops_per_token(policy: Policy) -> float:
    """2 for the way forward, 2 for the inputs' gradients, 2 for the weights' where they learn; embeddings look up only.

    https://arxiv.org/abs/2204.02311, appendix B, without its attention term. Recomputation does not count as useful.
    """
    embeddings = policy.inner.get_input_embeddings().weight
    tied = policy.head.module is not None and embeddings is getattr(policy.head.module, "weight", None)
    counted = [p for p in policy.parameters() if p is not embeddings or tied]
    return float(sum((6 if p.requires_grad else 4) * p.numel() for p in counted) + 4 * packed_weights(policy))
