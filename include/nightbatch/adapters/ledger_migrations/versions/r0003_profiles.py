"""What answers look like, shard by shard."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add what is new since 0002."""
    op.add_column("nb_shards", sa.Column("profile", sa.JSON))
