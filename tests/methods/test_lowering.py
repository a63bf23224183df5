"""What a CPU can say about other devices: programs have an XLA form there."""

import jax
import jax.numpy as jnp
import pytest
import small

from uhrjax import methods


@pytest.mark.parametrize("name", ["fctl", "foveation", "magnet", "pfnet"])
def test_gradient_lowers_for_gpu_and_tpu(name, monkeypatch):
    model = {"foveation": {"selection": "gsm"}, "magnet": {"trained": 1}}
    method = methods.build(small.config(name, model=model.get(name, {})))
    variables = jax.eval_shape(method.init, jax.random.key(0))
    batch = {k: jnp.asarray(v) for k, v in small.batch_for(method).items()}

    def loss(params, rest, key):
        given = {**rest, "params": params}
        outputs, stats = method.apply(given, batch, train=True, key=key)
        return method.loss(outputs, batch)["total"], stats

    # Some layers are written another way for a CPU.
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    rest = {kind: tree for kind, tree in variables.items() if kind != "params"}
    traced = jax.jit(jax.grad(loss, has_aux=True)).trace(
        variables["params"], rest, jax.random.key(0)
    )
    for platform in ("cuda", "tpu"):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert "stablehlo.convolution" in text
