"""Delivery of jobs to workers: jobs are records in Redis; kombu's lists only wake workers."""
