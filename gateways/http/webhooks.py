"""What payment providers tell us of their own accord. A webhook is a hint, never a fact: it makes us ask the provider now.

So whatever order, however often and by whatever route one comes, the books only ever hold what the provider answers when asked.
"""

import time
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from commands.context import Done
from commands.money import reconcile
from domain.shared import Refusal
from gateways.errors import Problem
from gateways.http.base import ApiState
from gateways.payments import signature

routes = APIRouter(prefix="/webhooks", tags=["webhooks"])


class Told(BaseModel):
    """Of a provider's event only whose payment it is about; its kind and its time do not matter."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    payment_id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f-]{1,64}$")]


@routes.post("/{provider}", status_code=204)
async def webhook(provider: str, request: Request, state: ApiState) -> None:
    """Signed by the provider. Any other answer than 204 asks for the event again later."""
    secret = state.webhook_secrets.get(provider)
    if secret is None:
        raise Problem("not_found", "There is no such payment provider.")
    body = await request.body()
    if not signature.verify(secret, request.headers.get(signature.HEADER), body, now_s=time.time()):
        raise Problem("signature_invalid", "This is not signed by the provider, or too long ago.")
    try:
        told = Told.model_validate_json(body)
    except ValidationError:
        raise Problem("invalid", "A webhook's body is a JSON object with a payment_id.") from None
    match await reconcile(state.context, told.payment_id):
        case Done() | Refusal(code="payment_declined"):
            return
        case Refusal() as refusal:
            raise Problem.of(refusal)
