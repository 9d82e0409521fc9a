"""A Flask application: a session in a cookie, an upload, a stream, an error."""

import hashlib
import os

from flask import Flask, Response, redirect, request, session

app = Flask(__name__)
app.secret_key = "only for this test"


@app.get("/")
def count():
    session["visits"] = session.get("visits", 0) + 1
    return {"visits": session["visits"], "pid": os.getpid()}


@app.post("/login")
def log_in():
    session["name"] = request.form["name"]
    return redirect("/name")


@app.get("/name")
def tell_name():
    return session["name"]


@app.post("/upload")
def digest():
    return hashlib.sha256(request.files["file"].read()).hexdigest()


@app.get("/stream")
def stream():
    return Response((f"line {number}\n" for number in range(5000)), mimetype="text/plain")


@app.get("/fail")
def fail():
    raise ValueError("a secret of the application")
