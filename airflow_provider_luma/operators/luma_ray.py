"""The operator: a prompt and a start frame in, a saved MP4 out, bought once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from os import PathLike
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.providers.common.compat.sdk import BaseOperator, conf

from airflow_provider_luma.exceptions import LumaRayConfigurationError, LumaRayError, LumaRayRecordError
from airflow_provider_luma.operators.checks import (
    ApiVersion,
    FrameTransfer,
    IfExists,
    OnUnknownSubmit,
    as_text,
    check_arguments,
    check_inputs,
    check_place,
    seconds,
)
from airflow_provider_luma.segmind.models import DEFAULT_MODEL
from airflow_provider_luma.segmind.money import money

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from airflow_provider_luma.hooks.luma_ray import LumaRayHook
    from airflow_provider_luma.jobs.job import Job, Reused
    from airflow_provider_luma.jobs.record import Identity, JobRecord
    from airflow_provider_luma.jobs.spec import Inputs
    from airflow_provider_luma.media import Frame
    from airflow_provider_luma.segmind.request import GenerationRequest
    from airflow_provider_luma.storage import StoredFile


#: A share of the frame. A few per cent are lost to rounding and go unnoticed.
_NOTABLE_CUT = 0.05


class LumaRayImageToVideoOperator(BaseOperator):
    """Turn a prompt and a start frame into a saved MP4, and pay for it once.

    One task instance buys one video: a retry, a clear or a restart re-attaches to the job on record, which is kept in
    ``<output_path>.job.json`` and, on Airflow 3.3 and later, in the task state store. Another value of anything that is
    billed (prompt, frame, model, parameters, connection, ``generation_tag``) is another video and another purchase.

    XComs, each a key of its own and together the returned dict: ``video_path`` (str), ``remaining_credits`` (US
    dollars as float, None where the vendor did not tell), ``credits_used`` (the same), ``request_id`` (str or None),
    ``model`` (str).

    An ``Asset`` or ``AssetAlias`` among the ``outlets`` gets an event with the video's path and what it cost; see
    ``airflow_provider_luma.outlets``.

    Facts of the vendor's from https://www.segmind.com/models/luma-ray-img-2-video/api.

    :param prompt: what to render (templated)
    :param start_frame: frame 0: an http(s) URL, or an image file of at most 20 MB (templated). Required, for left out
        the vendor would animate its own sample picture and charge for it; None is for models that need no frame
    :param output_path: where the MP4 goes; ending in ``/`` it is a folder, and the video becomes
        ``<dag_id>/<run_id>/<task_id>[-<map_index>].mp4`` below it (templated)
    :param model: the model's slug (templated); one that is not in the catalogue gets a warning and is passed on
    :param resolution: 540p, 720p, 1080p or 4k (templated). Default 720p, as the vendor's
    :param aspect_ratio: such as 16:9, or ``auto`` for the documented one that is nearest to the frame, which then has
        to be a file (templated). Default 1:1, as the vendor's; a warning says how much of the frame is cut off
    :param loop: whether the clip ends where it began. Default False, as in the vendor's sample; always sent
    :param concepts: camera moves, such as ``["push_in"]`` (templated)
    :param extra_parameters: further body fields, passed through for what the model learns later (templated)
    :param frame_transfer: how a file gets to the vendor: ``url`` signed by its store for two hours, ``upload`` to the
        vendor's storage, ``base64`` in the request, or ``auto``: a signed URL where the store signs one that the
        vendor reaches, else an upload; a URL goes as it is
    :param api_version: ``v2`` (submit and poll), ``v1`` (one blocking call), or ``auto``: v2, and v1 where the vendor
        refuses the slug on v2 with 404 or 405
    :param if_exists: for a video that another run left at the path: ``overwrite``, ``reuse`` or ``fail``. Within a run
        two task instances never share a path, but for ``reuse`` of the very same clip: a mapping that is expanded anew
        may have given it another index. ``keep`` is for batches: a path is one clip, bought at most once in a run,
        and whatever lies there is taken, whatever its inputs were
    :param on_unknown_submit: when a paid call's outcome is unknown and the vendor's history gave no answer: ``fail``,
        for a person to decide, or ``resubmit``, which may pay twice
    :param min_remaining_credits: refuse to start when the balance, less what the account's known jobs in flight and
        this one will cost, falls below it, in US dollars. Tasks that look at the same moment see the same balance, so
        together they may pass it: the cap that holds is ``plan_batch``'s. Default None: no floor of ours; the vendor
        refuses what the balance does not cover
    :param generation_tag: change it to buy another take of the same inputs (templated)
    :param timeout: how long to wait, in seconds or as a timedelta, counted from the submission, not from the attempt.
        Default 15 minutes, seven times the typical 125 s. A deferred wait is bounded by this alone: Airflow's
        ``execution_timeout`` counts only while a worker is held
    :param poll_interval: seconds (or a timedelta) between status calls. Default None: adapted to the model's typical
        time
    :param luma_ray_conn_id: the connection to Segmind (templated)
    :param storage_conn_id: the connection for object-store paths that name none themselves (templated)
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
    template_fields_renderers = {"extra_parameters": "json"}  # noqa: RUF012 - as in BaseOperator
    ui_color = "#e8e0f7"
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
        self.start_frame = start_frame  # type: ignore[assignment]  # a text once it is used
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

    def execute(self, context: Context) -> dict[str, Any]:
        """Buy the video or re-attach to it, wait, and return the XComs."""
        from airflow_provider_luma.jobs.record import JobRecord

        job, hook = self._job(context)
        bought = job.ensure_bought()
        was_there = not isinstance(bought, JobRecord) or bought.state == "delivered"
        if isinstance(bought, JobRecord):
            if self.deferrable and bought.state == "submitted":
                self._defer(bought)
            bought = job.deliver(job.wait(bought))
        return self._outputs(bought, hook, context, is_new=job.is_new, was_there=was_there)

    def dry_run(self) -> None:
        """Log what a run would buy, and what is on record where its video goes; nothing is sent that costs."""
        from airflow_provider_luma.jobs.ledger import SUFFIX
        from airflow_provider_luma.jobs.record import JobRecord
        from airflow_provider_luma.segmind.models import model_info
        from airflow_provider_luma.segmind.money import usd
        from airflow_provider_luma.storage import open_file

        self.output_path = as_text(self.output_path)
        check_place(self)
        inputs = self._inputs(None)
        price = model_info(self.model).price
        self.log.info("Would be sent to %s: %s", self.model, inputs.parameters)
        self.log.info("Start frame: %s", inputs.frame.source if inputs.frame else None)
        if self.output_path.endswith("/"):
            self.log.info(
                "A clip below %s would be bought for %s, unless its run has one.",
                self.output_path,
                usd(price),
            )
            return
        output = open_file(self.output_path, self.storage_conn_id)
        content = output.beside(SUFFIX).read()
        lies = "there" if output.look() else "not there"
        if content is None:
            self.log.info(
                "%s is %s and has no record: a clip would be bought for %s.", output, lies, usd(price)
            )
            return
        take = JobRecord.load(content)
        self.log.info(
            "%s is %s; on record: job %s of %s, %s. A retry of that task instance takes it up; another run goes by "
            "if_exists=%r, and a clip that it buys costs %s.",
            output,
            lies,
            take.request_id,
            take.identity,
            take.state,
            self.if_exists,
            usd(price),
        )

    def execute_complete(
        self, context: Context, event: Any, output_path: str | None = None
    ) -> dict[str, Any]:
        """Go on when the trigger has fired: look at the job, fetch its video, and return the XComs.

        A job that is still running is deferred again: what woke the task was a trigger that cannot ask, or a mistake.

        :param event: names the job; whatever else it says, the job is looked at anew
        :param output_path: where the video goes, as rendered when the wait began; None (``dag.test()`` drops it): as
            rendered now
        """
        self.output_path = output_path or self.output_path
        if not isinstance(event, dict) or not isinstance(event.get("request_id"), str):
            raise LumaRayRecordError(
                f"The trigger's event {event!r} names no job. The job is on record beside {self.output_path}; a retry "
                "re-attaches."
            )
        try:
            job, hook = self._job(context)
            take = job.recorded(event["request_id"])
        except LumaRayError as error:
            if error.standing:
                raise
            bought = "The job is bought; the next attempt re-attaches at no charge."
            raise error.with_context(event["request_id"], bought) from None
        take = job.wait(take, is_patient=not self.deferrable)
        if take.state == "submitted":
            reason = (
                "cannot ask about it, see its log"
                if event.get("reason") == "error"
                else "took it to have ended"
            )
            self.log.warning(
                "%s: still running, although the triggerer woke this task: it %s. Deferring again.",
                take.request_id,
                reason,
            )
            self._defer(take)
        return self._outputs(job.deliver(take), hook, context, is_new=True, was_there=False)

    def _defer(self, take: JobRecord) -> None:
        from airflow_provider_luma.triggers.luma_ray import LumaRayJobTrigger

        self.defer(
            trigger=LumaRayJobTrigger(
                luma_ray_conn_id=take.luma_ray_conn_id,
                request_id=str(take.request_id),
                model=take.model,
                submitted_at=take.started.isoformat(),
                timeout=self._timeout().total_seconds(),
                poll_interval=seconds(self.poll_interval),
                deferred_at=datetime.now(UTC).isoformat(),
            ),
            method_name="execute_complete",
            kwargs={"output_path": self.output_path},
        )

    def _timeout(self) -> timedelta:
        return self.timeout if isinstance(self.timeout, timedelta) else timedelta(seconds=self.timeout)

    def on_kill(self) -> None:
        """End the wait; the vendor has no cancel, so the job goes on."""
        self.log.warning(
            "The task was told to stop. A job that is bought goes on and stays on record; the next attempt re-attaches."
        )
        if self._stopped is not None:
            self._stopped.put(None)

    def _job(self, context: Context) -> tuple[Job, LumaRayHook]:
        from airflow_provider_luma.hooks.luma_ray import LumaRayHook
        from airflow_provider_luma.jobs.job import Job, check_output
        from airflow_provider_luma.jobs.ledger import Ledger
        from airflow_provider_luma.jobs.record import Clears, Identity
        from airflow_provider_luma.jobs.spec import JobSpec
        from airflow_provider_luma.storage import open_file

        self.output_path = as_text(self.output_path)
        check_place(self)
        identity, cleared = Identity.of(context), Clears.of(context)
        output = self._output(identity)
        check_output(output, self.output_path)
        folder = open_file(self.output_path, self.storage_conn_id) if self.output_path.endswith("/") else None
        ledger = Ledger(identity, output, context.get("task_state_store"), cleared, shared=folder)
        spec = JobSpec(
            identity=identity,
            cleared=cleared,
            luma_ray_conn_id=self.luma_ray_conn_id,
            output=output,
            inputs=self._inputs,
            frame_transfer=self.frame_transfer,
            # Native rendering makes a number of a template's "20261124"; it is the same take.
            generation_tag=None if self.generation_tag is None else str(self.generation_tag),
            api_version=self.api_version,
            if_exists=self.if_exists,
            on_unknown_submit=self.on_unknown_submit,
            min_remaining_credits=money(self.min_remaining_credits),
            timeout=self._timeout(),
            poll_interval=seconds(self.poll_interval),
        )
        hook = LumaRayHook(self.luma_ray_conn_id)
        self._stopped = SimpleQueue()

        def tell(take: JobRecord) -> None:
            context["ti"].xcom_push(key="request_id", value=take.request_id)

        return Job(spec, hook, ledger, self._stopped, tell), hook

    def _inputs(self, on_record: JobRecord | None) -> Inputs:
        """Check the inputs and read the frame."""
        from airflow_provider_luma.jobs.spec import Inputs

        self.start_frame = as_text(self.start_frame)
        check_inputs(self)
        frame = self._frame(on_record)
        return Inputs(self._request(self._ratio(frame, on_record)), frame)

    def _ratio(self, frame: Frame | None, on_record: JobRecord | None) -> str:
        """Return the clip's aspect ratio, and warn where it cuts off much of the frame."""
        from airflow_provider_luma.segmind.models import ASPECT_RATIOS, model_info
        from airflow_provider_luma.segmind.ratios import cut_off, nearest

        ratio, shape = self.aspect_ratio, frame.shape if frame else None
        best = (
            nearest(shape, model_info(self.model).values.get("aspect_ratio", ASPECT_RATIOS))
            if shape
            else None
        )
        if ratio == "auto":
            known = on_record.parameters.get("aspect_ratio") if on_record else None
            if best is None and not isinstance(known, str):
                raise LumaRayConfigurationError(
                    "aspect_ratio='auto' needs a frame whose size can be read, which that of "
                    f"{self.start_frame!r} cannot: give one of {', '.join(ASPECT_RATIOS)}."
                )
            return best or str(known)
        if shape and (share := cut_off(shape, ratio)) > _NOTABLE_CUT:
            self.log.warning(
                "aspect_ratio=%r cuts off %.0f %% of the start frame (%d x %d); %r cuts off least, which 'auto' takes.",
                ratio,
                100 * share,
                *shape,
                best,
            )
        return ratio

    def _request(self, aspect_ratio: str) -> GenerationRequest:
        from airflow_provider_luma.segmind.request import GenerationRequest

        request = GenerationRequest(
            model=self.model,
            prompt=self.prompt,
            start_frame=None,
            loop=self.loop,
            resolution=self.resolution,
            aspect_ratio=aspect_ratio,
            concepts=tuple(self.concepts or ()),
            extra_parameters=self.extra_parameters or {},
        )
        for doubt in request.doubts():
            self.log.warning("%s", doubt)
        return request

    def _frame(self, on_record: JobRecord | None) -> Frame | None:
        """Check the start frame; one that is gone is known by the record of the job that it was bought for."""
        from airflow_provider_luma.media import Frame, read_frame
        from airflow_provider_luma.storage import open_file

        if self.start_frame is None:
            return None
        try:
            return read_frame(self.start_frame, self.storage_conn_id)
        except LumaRayConfigurationError as error:
            if on_record is None or on_record.frame_identity is None:
                raise
            source = str(open_file(self.start_frame, self.storage_conn_id))
            if on_record.start_frame != source:
                raise
            self.log.warning("%s Going by the record of job %s.", error.cause, on_record.request_id)
            return Frame(source=source, identity=on_record.frame_identity)

    def _output(self, identity: Identity) -> StoredFile:
        from airflow_provider_luma.storage import open_file, safe_name

        name = self.output_path
        if name.endswith("/"):
            mapped = f"-{identity.map_index}" if identity.map_index >= 0 else ""
            task = safe_name(f"{identity.task_id}{mapped}")
            name += f"{safe_name(identity.dag_id)}/{safe_name(identity.run_id)}/{task}.mp4"
        return open_file(name, self.storage_conn_id)

    def _label(self, context: Context) -> None:
        """Name a mapped task instance after its frame in the UI, where the DAG's author names it by nothing else."""
        template, frame, index = "map_index_template", as_text(self.start_frame), context["ti"].map_index
        if index is None or index < 0 or not isinstance(frame, str) or context.get(template):
            return  # a decorated task that was deferred does not know its frame
        labelled: dict[str, Any] = context  # type: ignore[assignment]  # as Airflow lets templates see more
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

        :param is_new: the job was bought by this attempt, so that its record has the balance of now
        :param was_there: the video lay in its place before this attempt
        """
        from airflow_provider_luma.jobs.record import JobRecord
        from airflow_provider_luma.outlets import announce

        if isinstance(video, JobRecord):
            take: JobRecord | None = video
            path, cost, remaining = video.output_path, video.cost, video.remaining_credits
        else:
            take, path, cost, remaining = video.take, video.path, Decimal(0), None
        if remaining is None or not is_new:
            try:
                remaining = hook.get_credits().total
            except LumaRayError as error:
                self.log.warning("The balance of now is unknown: %s", error.cause)
        outputs = {
            "video_path": path,
            "remaining_credits": None if remaining is None else float(remaining),
            "credits_used": None if cost is None else float(cost),
            "request_id": take.request_id if take else None,
            "model": take.model if take else self.model,
        }
        self._delivered = take
        self._label(context)
        announce(context, self.outlets, outputs, was_there=was_there)
        return outputs
