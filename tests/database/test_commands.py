"""The table of steps in PostgreSQL is the one the gateway knows."""

import itertools

import psycopg

from skygw.control.ledger import CommandState, may_move
from tests.fakes.postgres import PostgresServer


def test_the_table_of_steps_says_what_the_ledger_says(postgres: PostgresServer) -> None:
    with psycopg.connect(postgres.gateway_url) as connection:
        allowed = set(connection.execute("SELECT from_state, to_state FROM skygw.command_step").fetchall())
    assert allowed == {
        (before.value, after.value)
        for before, after in itertools.product(CommandState, repeat=2)
        if may_move(before, after)
    }
