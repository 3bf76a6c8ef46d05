"""Steps on Kubernetes: those that ask for a machine in pods of their own, the others in processes of the run's pod.

Dagster's executors do one or the other for all steps, and a pod takes ten times as long to start as a process.

A step in a pod of its own is started again where that helps:

- It took more memory than it was given: with twice as much, up to the deployment's ceiling. What it then needed is
  kept; the next run begins with it, and says so.
- Its pod was evicted, preempted or deleted: up to five times, after the second on nodes that stay where such fit.

Where its image cannot be pulled, or no node takes it for a set time, it fails with what Kubernetes says. All else is
for the asset's retry policy; one that cannot be started fails alone.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from math import ceil, log2
from typing import TYPE_CHECKING

import dagster as dg

from tilth._dagster.connections import outlast_database_outages
from tilth._dagster.delegating_executor import Attempt, DelegatingExecutor
from tilth._dagster.executor import Problem, Run, Step
from tilth._dagster.pod_status import refusal
from tilth._dagster.preload import fork_server, note
from tilth._dagster.processes import cores
from tilth.execution import timeouts
from tilth.execution.compute import TAG, Request, as_quantity, leaves_spot, pool_for, quantity, request_of, step_config
from tilth.execution.local import StepsInProcesses
from tilth.settings import Deployment

if TYPE_CHECKING:
    from tilth._dagster.kubernetes import StepPods

POLL_SECONDS = 0.2
HEALTH_SECONDS = 2
LOSSES_ON_SPOT, LOSSES = 2, 5
# From 1Mi to 512Ti.
_DOUBLINGS = 30


def kubernetes_executor(code_location: str, *modules: str) -> dg.ExecutorDefinition:
    """The executor of a code location on Kubernetes; the arguments are those of `executor_of`.

    Steps whose asset has `op_tags=compute(...)` get a Kubernetes Job each, as many at once as the cluster takes. The
    others run in the run's pod, as many at once as it has cores, forked from its process; while one waits for a core it
    holds its pool's slot.
    """
    note(code_location, modules, ())

    def create(context: dg.InitExecutorContext) -> dg.Executor:
        outlast_database_outages()
        fork_server(context.instance, code_location)
        return DelegatingExecutor(
            "kubernetes", _Steps(Deployment()), poll_seconds=POLL_SECONDS, health_seconds=HEALTH_SECONDS
        )

    return dg.ExecutorDefinition(
        name="kubernetes",
        requirements=dg.multiple_process_executor_requirements(),
        executor_creation_fn=create,
        description="Steps that ask for a machine in pods of their own; the others in the run's pod.",
    )


class _Steps(StepsInProcesses):
    """Starts each step where it belongs, says what has become of it, and keeps for its next attempt what was learnt."""

    def __init__(self, deployment: Deployment) -> None:
        super().__init__(cores())
        self._deployment = deployment
        self._pods_of_run: StepPods | None = None
        # By step: what it asks for, what it is given, and how often its pod was lost.
        self._asked: dict[str, Request] = {}
        self._given: dict[str, Request] = {}
        self._losses: Counter[str] = Counter()
        self._unstarted: dict[str, Problem] = {}
        self._waiting: set[str] = set()

    def begin(self, run: Run, steps: Sequence[Step]) -> None:
        # Where this run tries another one again, whose pod died: its steps end before they are done once more.
        if run.parent_id is not None and any(TAG in step.tags for step in steps):
            self._pods(run.instance).delete_steps_of(run.parent_id)
        super().begin(run, steps)

    def launch(self, attempt: Attempt) -> None:
        step = attempt.step
        self._unstarted.pop(step.key, None)
        try:
            if TAG in step.tags:
                self._launch_pod(attempt, step)
            else:
                super().launch(attempt)
        except Exception as problem:  # noqa: BLE001 (of a size that a table does not have, or of the cluster)
            # Dagster's executor would end all other steps of the run.
            said = f"{step.name} could not be started: {refusal(problem)}"
            self._unstarted[step.key] = Problem("policy", said)

    def problem(self, attempt: Attempt) -> Problem | None:
        step = attempt.step
        if step.key in self._unstarted:
            return self._unstarted[step.key]
        return self._problem_of_pod(attempt, step) if TAG in step.tags else super().problem(attempt)

    def died(self, step: Step, how: str) -> str:
        return (
            f"The process of {step.name} {how}, in the run's pod. If it needed more memory than is left there, give it "
            'a pod of its own: op_tags=compute(memory="4Gi") on the asset.'
        )

    def stop(self, attempt: Attempt) -> None:
        step = attempt.step
        if step.key in self._unstarted:
            return
        if TAG in step.tags:
            self._pods(step.run.instance).delete(attempt)
        else:
            super().stop(attempt)

    def succeeded(self, step: Step) -> None:
        """Keep how much memory the step needed, if that was more than what one that asks for as much begins with."""
        asked, given = self._asked.get(step.key), self._given.get(step.key)
        if asked and given and given.memory not in (None, asked.memory):
            place = _places(step, asked.memory)[_doublings(asked.memory, given.memory)]
            step.run.keep(place, given.memory)

    def _launch_pod(self, attempt: Attempt, step: Step) -> None:
        if step.key not in self._given and (request := request_of(step.tags, step.partitions)):
            self._asked[step.key] = request
            self._given[step.key] = self._first_request(attempt, step)
        given, pools = self._given[step.key], self._deployment.node_pools
        on_demand = self._losses[step.key] >= LOSSES_ON_SPOT
        pool = pool_for(given, pools, on_demand=on_demand) or "default"
        attempt.report(f"{step.name} is given {given}.", given=str(given), **{"node pool": pool})
        self._waiting.discard(step.key)
        self._pods(step.run.instance).launch(attempt, step_config(given, pools, on_demand=on_demand))

    def _first_request(self, attempt: Attempt, step: Step) -> Request:
        """What the first attempt is given: what is asked for, or what was needed when it last asked for as much."""
        asked = self._asked[step.key]
        needed = _needed(step, asked.memory)
        if needed is None:
            return asked
        needed = min(needed, self._deployment.memory_ceiling, key=quantity)
        if asked.memory is not None and quantity(needed) <= quantity(asked.memory):
            return asked
        attempt.report(
            f"{step.name} needed {needed} of memory before, and begins with it. Ask for it: "
            f'op_tags=compute(memory="{needed}", ...).'
        )
        return replace(asked, memory=needed)

    def _problem_of_pod(self, attempt: Attempt, step: Step) -> Problem | None:
        pods = self._pods(step.run.instance)
        state = pods.state(attempt)
        ending = state.ending
        if ending is None:
            if state.waits_for and step.key not in self._waiting:
                self._waiting.add(step.key)
                attempt.report(f"{step.name} waits for a node: {state.waits_for}")
            return None
        if ending.how == "memory":
            return self._more_memory(step, state.memory_limit)
        if ending.how == "ended":
            return Problem("policy", f"{step.name}: {ending.said}.")
        if ending.how == "late":
            return Problem("policy", timeouts.explanation(step, self._given[step.key].timeout or ""))
        pods.delete(attempt)  # its Job would wait on, or make another pod
        if ending.how == "image":
            return Problem("fail", f"{step.name}: its image cannot be used. {ending.said}")
        if ending.how == "unschedulable":
            after, given = self._deployment.unschedulable_after, self._given[step.key]
            return Problem("fail", f"{step.name} ({given}) found no node within {after}: {ending.said}")
        return self._another_pod(step, ending.said)

    def _another_pod(self, step: Step, why: str) -> Problem:
        self._losses[step.key] += 1
        if self._losses[step.key] > LOSSES:
            return Problem("policy", f"{step.name} lost its pod {LOSSES + 1} times, now because {why}.")
        moves = self._losses[step.key] == LOSSES_ON_SPOT and leaves_spot(
            self._given[step.key], self._deployment.node_pools
        )
        return Problem("again", f"{step.name}: {why}. It begins again{', on nodes that stay' if moves else ''}.")

    def _more_memory(self, step: Step, limit_bytes: int | None) -> Problem:
        ceiling = self._deployment.memory_ceiling
        had = as_quantity(limit_bytes) if limit_bytes else "its node has"
        if not limit_bytes or limit_bytes >= quantity(ceiling):
            return Problem(
                "policy",
                f"{step.name} needed more than {had} of memory, and more is not given (TILTH_MEMORY_CEILING is "
                f"{ceiling}). Run fewer partitions at once, or raise it.",
            )
        more = as_quantity(min(2 * limit_bytes, quantity(ceiling)))
        self._given[step.key] = replace(self._given[step.key], memory=more)
        return Problem("again", f"{step.name} needed more than {had} of memory. It begins again with {more}.")

    def _pods(self, instance: dg.DagsterInstance) -> "StepPods":
        if self._pods_of_run is None:
            from tilth._dagster.kubernetes import StepPods  # dagster_k8s is for the runs that have such steps

            self._pods_of_run = StepPods(instance, timeouts.seconds(self._deployment.unschedulable_after))
        return self._pods_of_run


def _places(step: Step, asked: str | None) -> list[str]:
    """Where it is kept what a step of this code location needed that asked for so much memory: a place for each
    doubling, so that of two runs at once neither undoes what the other has learnt.
    """
    location = step.run.tags.get(".dagster/repository", "")
    return [f"tilth/memory/{location}/{step.key}/{asked or ''}/{doublings}" for doublings in range(_DOUBLINGS)]


def _doublings(asked: str | None, given: str) -> int:
    return min(_DOUBLINGS - 1, max(0, ceil(log2(quantity(given) / (quantity(asked) if asked else 2**20)))))


def _needed(step: Step, asked: str | None) -> str | None:
    """The most memory that the step needed of all times it asked for so much; None where that was enough."""
    return max(step.run.kept(_places(step, asked)).values(), key=quantity, default=None)
