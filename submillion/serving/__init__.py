"""A folder of runs as a page in the browser, served on this machine.

`app` puts the parts together: `guarding` refuses what does not come from the page, `folders` turns names into folders,
`listing`, `planner` and `explaining` answer, `models` keeps loaded runs, `pages` has the routes, `server` listens;
`page/` is what the browser loads. FastAPI and uvicorn are the extra `serve`: nothing is imported here.
"""
