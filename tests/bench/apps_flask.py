"""Hello-world in Flask."""

from flask import Flask

app = Flask(__name__)


@app.get("/items/<int:number>")
def hello(number):
    return "Hello, world!\n"
