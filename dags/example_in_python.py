"""The same as a job file, in Python: one call makes the Dag. For sources that only Python has, such as a DataFrame."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from nightbatch.job import Answer
from nightbatch.job_file import job_from
from nightbatch.orchestration.dag import build_dag  # airflow finds Dag files by this word


class Urgency(BaseModel):
    """What the model answers; becomes the columns of the sink."""

    urgency: Literal["low", "medium", "high"]
    needs_reply: bool


PROMPTS = Path(__file__).parent.parent / "include" / "prompts"

dag = build_dag(
    job_from(
        {
            "name": "review_urgency",
            "description": "How urgently does somebody have to answer a review? (a job in Python)",
            "owner": "data-team",
            "tags": ["reviews", "example"],
            "source": {
                "query": "select sentence_id, text from product_reviews"
                " where reviewed_at >= :window_start and reviewed_at < :window_end order by sentence_id",
                "connection": "warehouse",
                "key": "sentence_id",
            },
            "prompt": {"user": "How urgently does somebody have to answer this review?\n\n{{ text }}"},
            "answer": Answer.from_model(Urgency),
            "models": [
                {
                    "provider": "openai",
                    "model": "gpt-5-mini",
                    "connection": "openai_default",
                    "max_output_tokens": 200,
                }
            ],
            "sink": {"table": "review_urgency", "connection": "warehouse"},
            "schedule": "0 0 * * *",
            "budget_usd": "2.00",
        }
    )
)
