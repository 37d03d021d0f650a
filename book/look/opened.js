// Browsers load no modules into a page that was opened as a file: say what to do instead.
"use strict";
if (location.protocol === "file:") {
  document.getElementById("status").textContent =
    "This page needs a web server, because browsers do not let a page opened as a file read the network. " +
    "In the folder of the built book, run: python -m http.server. Then open http://localhost:8000/explorer/look.html.";
}
