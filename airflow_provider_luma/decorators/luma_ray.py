"""``@task.luma_ray``: a function returns what to render, the operator does the rest.

@task.luma_ray(output_path="s3://clips/", aspect_ratio="16:9", retries=2)
def clip(product: dict) -> dict:
    return {"prompt": f"Slow orbit around {product['name']}", "start_frame": product["photo"]}
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import (
    DecoratedOperator,
    context_merge,
    determine_kwargs,
    task_decorator_factory,
)
from airflow.sdk.definitions._internal.types import SET_DURING_EXECUTION

from airflow_provider_luma.exceptions import LumaRayConfigurationError
from airflow_provider_luma.operators.luma_ray import LumaRayImageToVideoOperator

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.bases.decorator import TaskDecorator

    from airflow_provider_luma.jobs.record import JobRecord
    from airflow_provider_luma.jobs.spec import Inputs

_REQUIRED = ("prompt", "start_frame", "output_path")
#: What a callable may return. A connection is not an input: retries need the account that paid.
_INPUTS = tuple(name for name in LumaRayImageToVideoOperator.template_fields if not name.endswith("conn_id"))


class _LumaRayDecoratedOperator(DecoratedOperator, LumaRayImageToVideoOperator):
    """``LumaRayImageToVideoOperator`` with inputs from a callable.

    The callable returns a dict of the operator's inputs (``prompt``, ``start_frame``, ``output_path``, ``model``,
    ``resolution``, ``aspect_ratio``, ``concepts``, ``extra_parameters``, ``generation_tag``). They override the
    decorator's arguments. Like the values of a mapped task, they are not rendered as templates.

    The callable runs once per attempt, so it must return the same for the same arguments: another prompt means another
    video and another purchase. It does not run again when a deferred task resumes, so a ``map_index_template`` should
    use ``task.op_kwargs``.

    :param python_callable: returns the inputs
    :param op_args: its positional arguments (templated)
    :param op_kwargs: its keyword arguments (templated)
    """

    template_fields: Sequence[str] = (
        *DecoratedOperator.template_fields,
        *LumaRayImageToVideoOperator.template_fields,
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        **LumaRayImageToVideoOperator.template_fields_renderers,
    }
    custom_operator_name = "@task.luma_ray"

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        prompt: Any = SET_DURING_EXECUTION,
        start_frame: Any = SET_DURING_EXECUTION,
        output_path: Any = SET_DURING_EXECUTION,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            python_callable=python_callable,
            op_args=op_args,
            op_kwargs=op_kwargs,
            prompt=prompt,
            start_frame=start_frame,
            output_path=output_path,
            **kwargs,
        )
        self._wrong_inputs: LumaRayConfigurationError | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Take the inputs from the callable, then run the operator."""
        try:
            self._take_inputs(context)
        except LumaRayConfigurationError as error:
            if getattr(self, "output_path") is SET_DURING_EXECUTION:  # noqa: B009 - its type is a rendered one's
                raise
            # The record is where it was, and may have a job that a retry has to finish, whatever its inputs are by now.
            self._wrong_inputs = error
        outputs: dict[str, Any] = super().execute(context)
        return outputs

    def _inputs(self, on_record: JobRecord | None) -> Inputs:
        if self._wrong_inputs is not None:
            raise self._wrong_inputs
        return super()._inputs(on_record)

    def execute_complete(
        self, context: Context, event: Any, output_path: str | None = None
    ) -> dict[str, Any]:
        """Resume as the operator does; the callable runs again only if ``dag.test()`` has dropped the path."""
        if output_path is None:
            self._take_inputs(context)
        return super().execute_complete(context, event, output_path)

    def _take_inputs(self, context: Context) -> None:
        context_merge(context, self.op_kwargs)
        arguments = determine_kwargs(self.python_callable, self.op_args, context)
        returned = self.python_callable(*self.op_args, **arguments)
        function = f"{self.python_callable.__name__}()"
        if not isinstance(returned, Mapping):
            raise LumaRayConfigurationError(
                f"{function} returned {type(returned).__name__}, but @task.luma_ray needs a dict of inputs such as "
                '{"prompt": ..., "start_frame": ..., "output_path": ...}.'
            )
        if strange := [name for name in returned if name not in _INPUTS]:
            raise LumaRayConfigurationError(
                f"{function} returned {', '.join(map(repr, strange))}, which is not an input: a callable returns some "
                f"of {', '.join(_INPUTS)}; everything else is an argument of @task.luma_ray."
            )
        for name, value in returned.items():
            setattr(self, name, value)
        if missing := [name for name in _REQUIRED if getattr(self, name) is SET_DURING_EXECUTION]:
            raise LumaRayConfigurationError(
                f"{', '.join(missing)} came neither from {function} nor from @task.luma_ray: give each of "
                f"{', '.join(_REQUIRED)} in one of the two."
            )


def luma_ray_task(
    python_callable: Callable[..., Any] | None = None, multiple_outputs: bool = True, **kwargs: Any
) -> TaskDecorator:
    """Make an image-to-video task from a function that returns its inputs.

    :param python_callable: the function
    :param multiple_outputs: whether each output is a separate XCom too. Default True, as for the operator
    :param kwargs: the operator's arguments
    """
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=multiple_outputs,
        decorated_operator_class=_LumaRayDecoratedOperator,
        **kwargs,
    )
