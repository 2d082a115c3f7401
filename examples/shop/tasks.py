import asyncio
import time
from decimal import Decimal

from pydantic import BaseModel, Field

from chervil import Task
from chervil.exceptions import SoftTimeLimitExceeded
from shop.app import app


# --8<-- [start:models]
class Line(BaseModel):
    sku: str
    quantity: int = Field(gt=0)
    price: Decimal


class Order(BaseModel):
    number: int
    customer: str
    lines: list[Line]


class Invoice(BaseModel):
    number: int
    total: Decimal


# --8<-- [end:models]


# --8<-- [start:price]
@app.task(pydantic=True)
def invoice(order: Order) -> Invoice:
    total = sum((line.quantity * line.price for line in order.lines), Decimal(0))
    return Invoice(number=order.number, total=total)


# --8<-- [end:price]


# --8<-- [start:charge]
@app.task(bind=True, autoretry_for=(ConnectionError,), retry_backoff=1, max_retries=5)
def charge(self: Task, number: int, amount: str) -> str:
    if self.request.retries < 2:  # a payment service that answers the third time
        raise ConnectionError("the payment service does not answer")
    return f"order {number}: charged {amount} after {self.request.retries} retries"


# --8<-- [end:charge]


# --8<-- [start:receipt]
@app.task
async def send_receipt(customer: str) -> str:
    await asyncio.sleep(0.1)  # a mail server
    return f"receipt sent to {customer}"


# --8<-- [end:receipt]


# --8<-- [start:stock]
@app.task(bind=True, soft_time_limit=1)
def count_stock(self: Task, shelves: int) -> dict[str, int]:
    counted = 0
    try:
        for shelf in range(shelves):
            self.update_state(state="COUNTING", meta={"shelf": shelf})
            time.sleep(0.05)
            counted += 1
    except SoftTimeLimitExceeded:
        pass  # what was counted so far is better than nothing
    return {"counted": counted, "of": shelves}


# --8<-- [end:stock]
