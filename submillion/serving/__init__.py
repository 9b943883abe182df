"""A folder of runs as a page in the browser, served on this machine.

`app` puts the parts together and listens; `guard` refuses what does not come from the page, `folders` turns names into
folders, `api` and `pages` have the routes; `service` answers through `queue` and `models`; `listing`, `planner` and
`explaining` make the answers; `page/` is what the browser loads. FastAPI and uvicorn are the extra `serve`: nothing is
imported here.
"""
