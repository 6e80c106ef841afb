"""The operator: a prompt and a start frame in, a saved MP4 out, paid for once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from os import PathLike
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.providers.common.compat.sdk import BaseOperator, conf

from airflow_provider_luma.exceptions import LumaRayError, LumaRayRecordError, without_traceback
from airflow_provider_luma.jobs.checks import (
    ApiVersion,
    FrameTransfer,
    IfExists,
    OnUnknownSubmit,
    as_text,
    check_arguments,
    check_place,
    duration,
    seconds,
)
from airflow_provider_luma.links.luma_ray import LumaRayClipLink, clip_url
from airflow_provider_luma.segmind.models import DEFAULT_MODEL

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from airflow_provider_luma.hooks.luma_ray import LumaRayHook
    from airflow_provider_luma.jobs.job import Job, Reused
    from airflow_provider_luma.jobs.record import JobRecord
    from airflow_provider_luma.jobs.spec import Inputs


class LumaRayImageToVideoOperator(BaseOperator):
    """Turn a prompt and a start frame into a saved MP4, and pay for it once.

    One task instance buys one video: a retry, a clear or a restart re-attaches to the job on record, kept in the
    sidecar file ``<output_path>.job.json`` and, on Airflow 3.3 and later, in the task state store. Changing anything
    that is billed (prompt, frame, model, parameters, connection, ``generation_tag``) means another video and another
    purchase.

    XComs, as separate keys and as the returned dict: ``video_path`` (str), ``remaining_credits`` and ``credits_used``
    (US dollars as float, None if the vendor did not say), ``request_id`` (str or None), ``model`` (str).

    An ``Asset`` or ``AssetAlias`` in ``outlets`` gets an event with the video's path and cost; see
    ``airflow_provider_luma.outlets``.

    Facts about the vendor from https://www.segmind.com/models/luma-ray-img-2-video/api.

    :param prompt: what to render (templated)
    :param start_frame: frame 0: an http(s) URL, or an image file of at most 20 MB (templated). Required, because
        without one the vendor would animate its sample picture and charge for it; None is for models that need no frame
    :param output_path: where the MP4 goes (templated). Ending in ``/`` it is a folder, and the video becomes
        ``<dag_id>/<run_id>/<task_id>[-<map_index>].mp4`` in it
    :param model: the model's slug (templated); one not in the catalogue is sent with a warning
    :param resolution: 540p, 720p, 1080p or 4k (templated). Default 720p, the vendor's default
    :param aspect_ratio: such as 16:9, or ``auto``: the documented ratio closest to the frame, which must then be a file
        (templated). Default 1:1, the vendor's default; a warning says how much of the frame is cropped
    :param loop: whether the clip ends where it began. Default False, as in the vendor's sample; always sent
    :param concepts: camera moves, such as ``["push_in"]`` (templated)
    :param extra_parameters: additional body fields, passed through, for features the model gains later (templated)
    :param frame_transfer: how a file reaches the vendor: ``url``, signed by its store for two hours; ``upload`` to the
        vendor's storage; ``base64`` in the request; or ``auto``: a signed URL if the store can sign one that the vendor
        can reach, else an upload. A URL is sent as it is
    :param api_version: ``v2`` (submit and poll), ``v1`` (one blocking call), or ``auto``: v2, falling back to v1 if the
        vendor refuses the slug on v2 with 404 or 405
    :param if_exists: what to do with a video that another run left at the path: ``overwrite``, ``reuse`` or ``fail``.
        Within a run two task instances never share a path, except to ``reuse`` the very same clip, since re-expanding a
        mapping may change a clip's index. ``keep`` is for batches: a path is one clip, bought at most once per run, and
        an existing file is used whatever its inputs were
    :param on_unknown_submit: if a paid call's outcome is unknown and the vendor's history does not settle it: ``fail``,
        so that a person decides, or ``resubmit``, which may pay twice
    :param min_remaining_credits: in US dollars; do not buy if the balance, less the cost of this job and of the
        account's known jobs in flight, would fall below it. Tasks that check at the same time see the same balance and
        may undercut it together; ``plan_batch`` has a hard cap. Default None: no floor; the vendor refuses what the
        balance does not cover
    :param generation_tag: change it to buy another take of the same inputs (templated)
    :param timeout: how long to wait, in seconds or as a timedelta, counted from the submission, not from the attempt.
        Default 15 minutes, seven times the typical 125 s. It alone bounds a deferred wait: Airflow's
        ``execution_timeout`` counts only while a worker is held
    :param poll_interval: seconds (or a timedelta) between polls. Default None: adapted to the model's typical time
    :param luma_ray_conn_id: the connection to Segmind (templated)
    :param storage_conn_id: the connection for object-store paths that do not name one (templated)
    :param deferrable: hold no worker while the vendor renders. Default: Airflow's ``operators.default_deferrable``
    :raises LumaRayError: see ``airflow_provider_luma.exceptions``
    """

    template_fields: Sequence[str] = (
        "prompt",
        "start_frame",
        "output_path",
        "model",
        "resolution",
        "aspect_ratio",
        "concepts",
        "extra_parameters",
        "generation_tag",
        "luma_ray_conn_id",
        "storage_conn_id",
    )
    template_fields_renderers = {"concepts": "json", "extra_parameters": "json"}  # noqa: RUF012 - as in BaseOperator
    ui_color = "#e8e0f7"
    operator_extra_links = (LumaRayClipLink(),)
    start_frame: str | None
    output_path: str

    def __init__(
        self,
        *,
        prompt: str,
        start_frame: str | PathLike[str] | None,
        output_path: str | PathLike[str],
        model: str = DEFAULT_MODEL,
        resolution: str = "720p",
        aspect_ratio: str = "1:1",
        loop: bool = False,
        concepts: Sequence[str] | None = None,
        extra_parameters: Mapping[str, Any] | None = None,
        frame_transfer: FrameTransfer = "auto",
        api_version: ApiVersion = "auto",
        if_exists: IfExists = "overwrite",
        on_unknown_submit: OnUnknownSubmit = "fail",
        min_remaining_credits: float | Decimal | None = None,
        generation_tag: str | None = None,
        timeout: float | timedelta = timedelta(minutes=15),
        poll_interval: float | timedelta | None = None,
        luma_ray_conn_id: str = "luma_ray_default",
        storage_conn_id: str | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        multiple_outputs: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(multiple_outputs=multiple_outputs, **kwargs)
        self.prompt = prompt
        self.start_frame = start_frame  # type: ignore[assignment]  # a str by the time it is used
        self.output_path = output_path  # type: ignore[assignment]  # the same
        self.model = model
        self.resolution = resolution
        self.aspect_ratio = aspect_ratio
        self.loop = loop
        self.concepts = concepts
        self.extra_parameters = extra_parameters
        self.frame_transfer = frame_transfer
        self.api_version = api_version
        self.if_exists = if_exists
        self.on_unknown_submit = on_unknown_submit
        self.min_remaining_credits = min_remaining_credits
        self.generation_tag = generation_tag
        self.timeout = timeout
        self.poll_interval = poll_interval
        self.luma_ray_conn_id = luma_ray_conn_id
        self.storage_conn_id = storage_conn_id
        self.deferrable = deferrable
        self._stopped: SimpleQueue[None] | None = None
        self._delivered: JobRecord | None = None
        check_arguments(self)

    @without_traceback
    def execute(self, context: Context) -> dict[str, Any]:
        """Buy the video or re-attach to it, wait, and return the XComs."""
        from airflow_provider_luma.jobs.call import Clip, only_clip
        from airflow_provider_luma.jobs.record import JobRecord

        job = self._job(context)
        with only_clip(context, None, Clip.of(self)):
            bought = job.ensure_bought()
        was_there = not isinstance(bought, JobRecord) or bought.state == "delivered"
        if isinstance(bought, JobRecord):
            if self.deferrable and bought.state == "submitted":
                self._defer(bought)
            bought = job.deliver(job.wait(bought))
        return self._outputs(bought, job.hook, context, is_new=job.is_new, was_there=was_there)

    def dry_run(self) -> None:
        """Log what a run would buy and what is on record at its output path; makes no paid call."""
        from airflow_provider_luma.jobs.ledger import SUFFIX
        from airflow_provider_luma.jobs.record import JobRecord
        from airflow_provider_luma.segmind.models import model_info
        from airflow_provider_luma.segmind.money import usd
        from airflow_provider_luma.storage import open_file

        self._take_paths_as_texts()
        check_place(self)
        inputs = self._inputs(None)
        price = model_info(self.model).price
        self.log.info("Would send to %s: %s", self.model, inputs.parameters)
        self.log.info("Start frame: %s", inputs.frame.source if inputs.frame else None)
        if self.output_path.endswith("/"):
            self.log.info(
                "Would buy a clip in %s for %s, unless its run already has one.",
                self.output_path,
                usd(price),
            )
            return
        output = open_file(self.output_path, self.storage_conn_id)
        content = output.beside(SUFFIX).read()
        lies = "exists" if output.look() else "does not exist"
        if content is None:
            self.log.info("%s %s and has no record: would buy a clip for %s.", output, lies, usd(price))
            return
        take = JobRecord.load(content)
        self.log.info(
            "%s %s; on record: job %s of %s, %s. A retry of that task instance re-attaches to it; another run follows "
            "if_exists=%r, and a clip that it buys costs %s.",
            output,
            lies,
            take.request_id,
            take.identity,
            take.state,
            self.if_exists,
            usd(price),
        )

    @without_traceback
    def execute_complete(
        self, context: Context, event: Any, output_path: str | None = None
    ) -> dict[str, Any]:
        """Resume after the trigger has fired: poll the job, fetch its video, and return the XComs.

        If the job is still running, defer again: the trigger could not poll, or was mistaken.

        :param event: names the job; nothing else in it is trusted
        :param output_path: where the video goes, as rendered before the wait; None (``dag.test()`` drops it): as
            rendered now
        """
        from airflow_provider_luma.jobs.call import Clip, asked_first

        self.output_path = output_path or self.output_path
        if not isinstance(event, dict) or not isinstance(event.get("request_id"), str):
            raise LumaRayRecordError(
                f"The trigger's event {event!r} names no job. The job is on record beside {self.output_path}; a retry "
                "re-attaches."
            )
        try:
            job = self._job(context)
            asked_first(context, None, Clip.of(self))
            take = job.recorded(event["request_id"])
        except LumaRayError as error:
            if error.standing:
                raise
            bought = "The job is bought; the next attempt re-attaches at no charge."
            raise error.with_context(event["request_id"], bought) from None
        take = job.wait(take, is_patient=not self.deferrable)
        if take.state == "submitted":
            reason = (
                "could not poll the job, see its log"
                if event.get("reason") == "error"
                else "believed the job had ended"
            )
            self.log.warning(
                "%s: still running, but the triggerer woke this task: it %s. Deferring again.",
                take.request_id,
                reason,
            )
            self._defer(take)
        return self._outputs(job.deliver(take), job.hook, context, is_new=True, was_there=False)

    def _defer(self, take: JobRecord) -> None:
        from airflow_provider_luma.triggers.luma_ray import LumaRayJobTrigger

        self.defer(
            trigger=LumaRayJobTrigger(
                luma_ray_conn_id=take.luma_ray_conn_id,
                request_id=str(take.request_id),
                model=take.model,
                submitted_at=take.started.isoformat(),
                timeout=duration(self.timeout).total_seconds(),
                poll_interval=seconds(self.poll_interval),
                deferred_at=datetime.now(UTC).isoformat(),
            ),
            method_name="execute_complete",
            kwargs={"output_path": self.output_path},
        )

    def on_kill(self) -> None:
        """End the wait; the vendor has no cancel, so the job keeps running."""
        self.log.warning(
            "The task was told to stop. A bought job keeps running and stays on record; the next attempt re-attaches."
        )
        if self._stopped is not None:
            self._stopped.put(None)

    def _job(self, context: Context) -> Job:
        from airflow_provider_luma.hooks.luma_ray import LumaRayHook
        from airflow_provider_luma.jobs.order import job_of
        from airflow_provider_luma.jobs.record import Clears, Identity

        self._take_paths_as_texts()
        self._stopped = SimpleQueue()

        def tell(take: JobRecord) -> None:
            context["ti"].xcom_push(key="request_id", value=take.request_id)
            # Airflow itself stores a link only when the attempt ends.
            context["ti"].xcom_push(key=LumaRayClipLink().xcom_key, value=clip_url(context["ti"]))

        return job_of(
            self,
            LumaRayHook(self.luma_ray_conn_id),
            Identity.of(context),
            self._inputs,
            store=context.get("task_state_store"),
            cleared=Clears.of(context),
            stopped=self._stopped,
            bought=tell,
        )

    def _inputs(self, on_record: JobRecord | None) -> Inputs:
        from airflow_provider_luma.jobs.order import inputs_of

        return inputs_of(self, on_record)

    def _take_paths_as_texts(self) -> None:
        self.start_frame, self.output_path = as_text(self.start_frame), as_text(self.output_path)

    def _label(self, context: Context) -> None:
        """Label a mapped task instance with its frame's name in the UI, unless the DAG's author labels it."""
        template, frame, index = "map_index_template", as_text(self.start_frame), context["ti"].map_index
        if index is None or index < 0 or not isinstance(frame, str) or context.get(template):
            return  # a decorated task does not know its frame after a deferral
        labelled: dict[str, Any] = context  # type: ignore[assignment]  # templates may see additional names
        labelled[template] = "{{ luma_ray_frame }}"
        labelled["luma_ray_frame"] = urlsplit(frame).path.rpartition("/")[2]

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any] | None:
        """Return the lineage of the delivered video, for Airflow's OpenLineage provider."""
        from airflow_provider_luma.outlets import lineage

        return None if self._delivered is None else lineage(self._delivered)

    def _outputs(
        self, video: JobRecord | Reused, hook: LumaRayHook, context: Context, *, is_new: bool, was_there: bool
    ) -> dict[str, Any]:
        """Return the XComs.

        :param is_new: this attempt bought the job, so that the balance on record is current
        :param was_there: the video existed before this attempt
        """
        from airflow_provider_luma.jobs.order import outputs_of
        from airflow_provider_luma.jobs.record import JobRecord
        from airflow_provider_luma.outlets import announce

        outputs = outputs_of(video, hook, self, is_new=is_new)
        self._delivered = video if isinstance(video, JobRecord) else video.take
        self._label(context)
        announce(context, self.outlets, outputs, was_there=was_there)
        return outputs
