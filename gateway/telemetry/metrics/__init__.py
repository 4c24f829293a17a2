"""Metrics: prometheus_client in multiprocess mode.

=================== ========================================================================================
`declarations`      every metric, declared once; `families()` for the documents and the tests
`families`          how one is declared: `Section`, `Family`, `Label`
`labels`            what labels may hold: `TenantLabel`, `SubjectLabel`, `method_label`
`zero_series`       what is there from the start: `begin_at_zero`
`vitals`            what a worker tells of itself once a second: `Vitals`
`files`             the folder of a run, and those of workers that are gone
`exposition`        what a scraper gets: `expose`
`server`            ``METRICS_BIND``: the metrics' own address
=================== ========================================================================================
"""
