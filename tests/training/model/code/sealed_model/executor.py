"""NVFLARE's tasks `train`, `validate` and `submit_model` on the site's own data."""

from pathlib import Path

from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.app_common.np.constants import NPConstants

from . import regression

# p6 in the sealed machine: read-only, and no other site's.
DATA = Path("/opt/nvflare/data")


class SealedExecutor(Executor):
    """Trains on `train.csv`, and measures on `test.csv`, which no training sees."""

    def __init__(self, steps: int = 1000, rate: float = 0.3):
        super().__init__()
        self.steps = steps
        self.rate = rate

    def execute(
        self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal
    ) -> Shareable:
        if task_name not in ("train", "validate"):
            return make_reply(ReturnCode.TASK_UNKNOWN)
        if abort_signal.triggered:
            return make_reply(ReturnCode.TASK_ABORTED)
        weights = from_shareable(shareable).data[NPConstants.NUMPY_KEY]
        test = regression.read(DATA / "test.csv")
        if task_name == "validate":
            return DXO(
                DataKind.METRICS, data={"accuracy": regression.accuracy(weights, *test)}
            ).to_shareable()
        train = regression.read(DATA / "train.csv")
        trained = regression.train(weights, *train, self.steps, self.rate)
        self.log_info(
            fl_ctx,
            f"trained on {len(train[1])} rows: accuracy {regression.accuracy(trained, *test):.3f}",
        )
        reply = DXO(DataKind.WEIGHTS, data={NPConstants.NUMPY_KEY: trained})
        reply.set_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND, len(train[1]))
        return reply.to_shareable()
