// Browsers load no modules into a page that was opened as a file: say what to do instead.
"use strict";
if (location.protocol === "file:") {
  const line = document.getElementById("status");
  line.textContent = "This page needs a web server, because a browser does not let a page that is opened as a file load "
    + "the network's weights. In the folder of the book, the one above this page's, run python -m http.server, then open "
    + "http://localhost:8000/explorer/look.html. The explorer also works from its file.";
  document.querySelector("main").replaceChildren(line);
}
