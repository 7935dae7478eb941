"""What users see of uvicorn, as a list of behaviours that is recorded from uvicorn and replayed on ostler.

`behaviours.py` says what a behaviour is, `topics/` has the list, `uvicorn.json` what uvicorn did, and
`differences.json` where ostler differs on purpose, with the row of docs/coming-from-uvicorn.md that says why.
"""
