"""What a million chats of ten seconds cost by list price, from what one of them took."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.situations import Chat

PRICES = Path(__file__).parent / "prices.json"
MILLION = 1_000_000
# Not measured here: in functions/meter a usage row that comes alone is marked and added to four
# sums, in one transaction of five items. Rows that come together share some of them.
METER_WRITE_UNITS = 10.0
# Lambda's own three lines for an invocation (START, END, REPORT as JSON), and CloudWatch's 26 bytes
# for each line. An estimate.
PLATFORM_LOG_BYTES = 900


def prices() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(PRICES.read_text())
    return read


def of_a_million(chat: Chat, memory_mb: int, traced: float) -> dict[str, float]:
    """Return USD by what they are paid for. `traced` is the share of chats that X-Ray records."""
    usd = {name: each["usd"] for name, each in prices().items() if isinstance(each, dict)}
    logged = (chat.log_bytes + PLATFORM_LOG_BYTES) / 1e9
    by_chat = {
        "Lambda, duration": chat.billed_s * memory_mb / 1024 * usd["lambda_gb_second"],
        "Lambda, requests": usd["lambda_request"],
        "API Gateway": usd["rest_api_request"],
        "DynamoDB, writes of the chat": chat.write_units * usd["dynamodb_write_unit"],
        "DynamoDB, writes of the meter": METER_WRITE_UNITS * usd["dynamodb_write_unit"],
        "DynamoDB, reads": chat.read_units * usd["dynamodb_read_unit"],
        "logs": logged * usd["log_gb"],
        "X-Ray": traced * usd["trace"],
        "data to the internet": chat.sent_bytes / 1e9 * usd["data_out_gb"],
    }
    return {name: each * MILLION for name, each in by_chat.items()}
