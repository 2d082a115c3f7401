"""`python -m shop.client`, while `chervil -A shop worker` runs."""

import asyncio

from shop.tasks import Line, Order, charge, count_stock, invoice, send_receipt


async def buy(order: Order) -> None:
    bill = await invoice.adelay(order)
    total = (await bill)["total"]
    print("total", total)
    charged, sent = await asyncio.gather(
        charge.adelay(order.number, total), send_receipt.adelay(order.customer)
    )
    print(await sent)
    print(await charged)


if __name__ == "__main__":
    lines = [Line(sku="seeds", quantity=3, price="1.20"), Line(sku="pot", quantity=1, price="4")]
    asyncio.run(buy(Order(number=17, customer="ada@example.org", lines=lines)))
    print(count_stock.delay(100).get(timeout=10))
