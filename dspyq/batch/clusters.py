"""Clusters of a batch's rows: documents, users, or whatever field ``--cluster`` names.

The journal keeps a number for each row's cluster, and nothing that a user wrote.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from dspyq.batch.files.rows import NO_CLUSTER, Row
from dspyq.batch.files.source import Source
from dspyq.batch.journal import Journal
from dspyq.batch.options import BatchOptions
from dspyq.batch.quotes.quote import QuoteOptions
from dspyq.config.lane_faults import find_faults_of_lane
from dspyq.config.programs import Program
from dspyq.errors import BatchRefused
from dspyq.prediction.request import find_variant

_TABLE = "CREATE TABLE IF NOT EXISTS clusters (row INTEGER PRIMARY KEY, cluster INTEGER NOT NULL)"


def check_options(options: BatchOptions | QuoteOptions, program: Program) -> None:
    """Check what a batch is to compare, and its lane; its quote is refused for the same.

    Raises:
        UnknownVariant: If it names a variant that the program does not have.
        BatchRefused: If its options do not go together, or its lane cannot serve it.
    """
    if options.variant is not None:
        find_variant(program, options.variant)
        if options.is_paired:
            raise BatchRefused("--paired runs every variant: leave --variant out")
    if options.cluster is not None and not options.is_paired:
        raise BatchRefused("--cluster is for comparisons: give --paired too, or leave it out")
    for fault in find_faults_of_lane(options.lane, program, options.variant):
        raise BatchRefused(f"--lane {options.lane}: {fault}")
    if options.finish_by is not None and not options.lane:
        raise BatchRefused("--finish-by is for batches with a lane: give --lane too, or leave it out")


def check_cluster(options: BatchOptions, source: Source, program: Program) -> None:
    """Refuse a batch whose first row lacks the field of its cluster: all of them may.

    Raises:
        BatchRefused: If it does.
        InvalidFile: If the file has no such column.
    """
    if options.cluster is None:
        return
    row = next(iter(source.rows(program, options.cluster)), None)
    if row is not None and row.fault is not None and row.fault.type == NO_CLUSTER:
        raise BatchRefused(f"{row.fault.message}; it is an input field, or a field beside custom_id in each row")


def note_clusters(journal: Journal, rows: Iterable[Row]) -> None:
    """Keep the numbers of the rows' clusters, where they have some."""
    clustered = [row for row in rows if row.cluster is not None]
    if clustered:
        journal.execute(_TABLE)
    for row in clustered:
        journal.execute("INSERT OR REPLACE INTO clusters VALUES (?, ?)", row.number, row.cluster)


def read_clusters(database: sqlite3.Connection) -> Iterable[tuple[int, int]]:
    """Return the numbers of the rows' clusters in a journal, by row."""
    if not database.execute("SELECT 1 FROM sqlite_schema WHERE name = 'clusters'").fetchone():
        return ()
    return database.execute("SELECT row, cluster FROM clusters")
