// Keeps pages fresh, and says so when they are not. Without it every page works by links and forms.
//
// What always holds: what could not be fetched anew within LIMIT is shown as unknown, in words, shape and colour, with the time that it is
// of. A page that was brought back from memory, or slept with its machine, counts as old until it was fetched.
(function () {
  "use strict";

  // Three fetches of a page that fetches every two seconds.
  var LIMIT = 6000;
  var root = document.documentElement;
  var banner = document.getElementById("stale");
  // Two clocks: one may stand still while a machine sleeps, the other may be set.
  var fresh = { wall: Date.now(), steady: performance.now(), of: Number(root.dataset.at) };
  var over = false;

  function live() {
    return document.querySelectorAll("[data-live]");
  }

  function time(ms) {
    return new Date(ms).toISOString().slice(0, 19) + "Z";
  }

  // What is shown is of the moment at which it was read, which may be before the page was made.
  function date() {
    live().forEach(function (element) {
      fresh.of = Number(element.dataset.at) || fresh.of;
    });
  }

  function age() {
    return Math.max(Date.now() - fresh.wall, performance.now() - fresh.steady);
  }

  function unknown(element) {
    var mark = element.querySelector(".mark");
    var word = element.querySelector(".word");
    element.className = "state unknown";
    if (mark) {
      mark.setAttribute("class", "mark unknown");
      mark.querySelector("use").setAttribute("href", "#s-unknown");
    }
    if (word) {
      word.textContent = "unknown";
    }
  }

  function say(why) {
    var text = why + " What this page shows is of " + time(fresh.of) + " and may no longer be true: how the databases stand is unknown here.";
    if (banner.textContent !== text) {
      banner.textContent = text;
      if (over) {
        var link = document.createElement("a");
        link.href = "/login?to=" + encodeURIComponent(location.pathname + location.search);
        link.textContent = "Log in again";
        banner.append(" ", link);
      }
    }
    banner.hidden = false;
    root.dataset.stale = "yes";
    document.querySelectorAll(".state:not(.unknown)").forEach(unknown);
    // What would be lost has grown since, or not.
    document.querySelectorAll(".live .now").forEach(function (element) {
      element.textContent = "not known";
      element.classList.add("not-known");
    });
  }

  function look() {
    if (live().length === 0) {
      // What is fetched no more, because it does not change any more, is not old.
      banner.hidden = true;
      delete root.dataset.stale;
      return;
    }
    if (over) {
      say("Your session is over.");
    } else if (age() > LIMIT) {
      say("farshore has not answered for " + Math.round(age() / 1000) + " s.");
    } else if (!banner.hidden) {
      banner.hidden = true;
      delete root.dataset.stale;
    }
  }

  document.addEventListener("htmx:afterRequest", function (event) {
    var detail = event.detail;
    if (detail.xhr && detail.xhr.status === 401) {
      over = true;
    } else if (detail.successful && detail.requestConfig && detail.requestConfig.elt.hasAttribute("data-live")) {
      // The element that asked is no longer in the page, and the event is another's.
      fresh.wall = Date.now();
      fresh.steady = performance.now();
    }
    look();
  });

  document.addEventListener("htmx:afterSwap", function () {
    date();
    look();
  });

  document.addEventListener("visibilitychange", function () {
    look();
    if (!document.hidden && window.htmx) {
      live().forEach(function (element) { window.htmx.trigger(element, "refresh"); });
    }
  });
  window.addEventListener("pageshow", function (event) {
    if (event.persisted) {
      fresh.wall = 0;
      look();
    }
  });
  date();
  setInterval(look, 1000);

  // One key moves to the field that names it. Never while somebody writes.
  document.addEventListener("keydown", function (event) {
    var at = document.activeElement;
    if (event.ctrlKey || event.metaKey || event.altKey || (at && /^(INPUT|TEXTAREA|SELECT)$/.test(at.tagName))) {
      return;
    }
    document.querySelectorAll("[data-key]").forEach(function (field) {
      if (field.dataset.key === event.key) {
        event.preventDefault();
        field.focus();
        field.select();
      }
    });
  });

  // What must not be sent twice is sent once: the second answer would hide the first.
  document.addEventListener("submit", function (event) {
    var form = event.target;
    if (!form.hasAttribute("data-once")) {
      return;
    }
    if (form.dataset.sent) {
      event.preventDefault();
    }
    form.dataset.sent = "yes";
  });
  window.addEventListener("pageshow", function () {
    document.querySelectorAll("[data-sent]").forEach(function (form) { delete form.dataset.sent; });
  });

  // Copies a line. Where the browser forbids it, the line is marked, to be copied by hand.
  document.addEventListener("click", function (event) {
    var button = event.target.closest ? event.target.closest("[data-copy]") : null;
    if (!button) {
      return;
    }
    var line = document.getElementById(button.dataset.copy);
    function done(word) { button.textContent = word; }
    function mark() {
      getSelection().selectAllChildren(line);
      done("Marked");
    }
    if (navigator.clipboard) {
      navigator.clipboard.writeText(line.textContent).then(function () { done("Copied"); }, mark);
    } else {
      mark();
    }
  });
})();

// The thumb of a recovery timeline: keys press the buttons beneath it, a press on the strip goes to that time. The buttons are links, and do
// all of it without this.
(function () {
  "use strict";

  var KEYS = { ArrowLeft: "commit-back", ArrowDown: "commit-back", ArrowRight: "commit-on", ArrowUp: "commit-on", PageDown: "ten-back", PageUp: "ten-on", Home: "home", End: "end" };
  var SHIFTED = { ArrowLeft: "event-back", ArrowDown: "event-back", ArrowRight: "event-on", ArrowUp: "event-on" };
  var busy = false;
  var held = false;

  function timeline() {
    return document.getElementById("timeline");
  }

  document.addEventListener("keydown", function (event) {
    if (!event.target || event.target.id !== "thumb") {
      return;
    }
    var step = (event.shiftKey ? SHIFTED : KEYS)[event.key];
    if (!step) {
      return;
    }
    event.preventDefault();
    var link = document.querySelector("[data-step=\"" + step + "\"]");
    // A key that is held asks again once the answer is here.
    if (link && !busy) {
      link.click();
    }
  });

  document.addEventListener("htmx:beforeRequest", function (event) {
    var target = event.detail.target;
    if (target && target.id === "timeline") {
      // Fetching it by itself must not take a picture from under a hand.
      if (held && event.detail.elt === target) {
        event.preventDefault();
        return;
      }
      busy = true;
    }
  });
  document.addEventListener("htmx:afterRequest", function (event) {
    var target = event.detail.target;
    if (target && target.id === "timeline") {
      busy = false;
    }
  });

  function part(event, svg) {
    var box = svg.getBoundingClientRect();
    return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  }

  document.addEventListener("pointerdown", function (event) {
    var svg = event.target.closest ? event.target.closest("svg.picture") : null;
    if (!svg || event.button !== 0 || event.target.closest("a")) {
      return;
    }
    held = true;
    var thumb = document.getElementById("thumb");
    function move(event) {
      if (thumb) {
        thumb.setAttribute("x", (part(event, svg) * 100).toFixed(2) + "%");
      }
    }
    function end(event) {
      document.removeEventListener("pointermove", move);
      document.removeEventListener("pointerup", end);
      held = false;
      var at = timeline();
      var from = Number(at.dataset.from);
      var time = new Date(from + part(event, svg) * (Number(at.dataset.to) - from)).toISOString();
      var url = at.dataset.pick + "&at=" + encodeURIComponent(time);
      if (window.htmx) {
        window.htmx.ajax("GET", url + "&part=timeline", { target: "#timeline", swap: "outerHTML" });
        history.replaceState(null, "", url);
      } else {
        location.href = url;
      }
    }
    move(event);
    document.addEventListener("pointermove", move);
    document.addEventListener("pointerup", end);
  });
})();
