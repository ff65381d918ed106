"""Errors of calls that a budget blocks: each names the limit and the setting to change."""

from __future__ import annotations

from dspyq.core.money import exact_dollars
from dspyq.errors import BatchLimitReached, BatchShareUsed, BudgetExceeded, TenantLimitReached
from dspyq.guards.budget import HoldVerdict
from dspyq.guards.limits import describe_scope

#: Verdicts on a tenant's accounts, by those on others that have the same reason.
_ALIKE = {"tenant_busy": "busy", "tenant_limit": "exhausted"}


def limit_error(verdict: HoldVerdict) -> BudgetExceeded:
    """Return the error for a caller who does not wait, for any limit but a batch's."""
    owner, table, options = describe_scope(verdict.scope)
    limit = f"the {verdict.period} limit of {owner}, {exact_dollars(verdict.limit_nano_usd)}"
    reason = {
        "busy": f"calls under way may use up what is left of {limit}",
        "exhausted": f"{limit}, is used up",
        "never": f"this call may cost more than {limit}: lower its model's max_tokens",
    }[_ALIKE.get(verdict.verdict, verdict.verdict)]
    error = TenantLimitReached if verdict.scope.startswith("tenant:") else BudgetExceeded
    return error(
        f"{reason}; raise {table}.{verdict.period}_usd, or at once: dspyq budget set --{verdict.period} USD{options}"
    )


def batch_error(verdict: HoldVerdict) -> BatchLimitReached | BatchShareUsed:
    """Return the error for a batch that may not spend this much."""
    batch = verdict.scope.replace(":", " ")
    limit = exact_dollars(verdict.limit_nano_usd)
    if verdict.verdict == "batch_share":
        error = BatchShareUsed(
            f"this call may cost more than {batch} has left of its share of today's budget, {limit}; it goes on "
            "when there is more: tomorrow, or with a larger --budget-share or budget.daily_usd"
        )
        error.retry_after_seconds = verdict.wait_seconds
        return error
    if verdict.verdict == "batch_closed":
        return BatchLimitReached(f"{batch} has no account, so its limits are unknown; run it again")
    return BatchLimitReached(
        f"this call may cost more than {batch} has left of its --max-usd, {limit}; run it again with a higher one"
    )
