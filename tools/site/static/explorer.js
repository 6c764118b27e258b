// Explorers without a kernel: controls that choose among states which were computed and drawn beforehand.
//
// <div class="explorer" data-explorer="01-2"> holds a picture and a readout of the first state. When the reader comes
// near, 01_states.js, which lies beside this script, is loaded; tools/site/script.py says what it holds.

(() => {
  "use strict";

  const NEAR = "1500px"; // from the window's edge: then its lab's states are loaded
  const KEPT = 24; // sheets that stay decoded, of 5 MB each
  const folder = new URL(".", document.currentScript.src);
  const element = (name, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  };

  // ---- a lab's states, loaded once

  const arrivals = new Map(); // lab -> what to call with its states
  const labs = new Map(); // lab -> promise of them

  window.explorerStates = (lab, data) => arrivals.get(lab)({ ...data, decoded: new Sheets(data.sheets) });

  function statesOf(lab) {
    if (!labs.has(lab)) {
      labs.set(lab, new Promise((resolve, reject) => {
        arrivals.set(lab, resolve);
        document.head.append(element("script", { src: new URL(`${lab}_states.js`, folder), onerror: reject }));
      }));
    }
    return labs.get(lab);
  }

  // ---- decoded sheets, those longest unused forgotten

  class Sheets {
    constructor(encoded) {
      this.encoded = encoded;
      this.bitmaps = new Map(); // place -> bitmap, or promise of one
    }

    async get(place) {
      const kept = this.bitmaps.get(place) ?? createImageBitmap(blobOf(this.encoded[place]));
      this.keep(place, kept);
      const bitmap = await Promise.resolve(kept).catch((error) => {
        if (this.bitmaps.get(place) === kept) this.bitmaps.delete(place); // the next call tries again
        throw error;
      });
      if (this.bitmaps.get(place) === kept) this.bitmaps.set(place, bitmap);
      return bitmap;
    }

    /** The bitmap, if it is decoded already. */
    ready(place) {
      const kept = this.bitmaps.get(place);
      if (!(kept instanceof ImageBitmap)) return null;
      this.keep(place, kept);
      return kept;
    }

    keep(place, kept) {
      this.bitmaps.delete(place);
      this.bitmaps.set(place, kept);
      if (this.bitmaps.size <= KEPT) return;
      const [oldest, forgotten] = this.bitmaps.entries().next().value;
      this.bitmaps.delete(oldest);
      Promise.resolve(forgotten).then((bitmap) => bitmap.close(), () => {}); // its 5 MB at once, and not with the next collection
    }
  }

  const blobOf = (base64) =>
    new Blob([Uint8Array.from(atob(base64), (character) => character.charCodeAt(0))], { type: "image/webp" });

  // ---- one explorer

  class Explorer {
    constructor(root, lab) {
      this.root = root;
      this.lab = lab;
      this.data = lab.explorers[root.dataset.explorer];
      this.at = this.data.controls.map((control) => control.start);
      this.image = root.querySelector("img");
      this.readout = root.querySelector(".explorer-readout");
      this.readout.setAttribute("role", "status");
      this.readout.setAttribute("aria-live", "polite");
    }

    async open() {
      this.background = await createImageBitmap(blobOf(this.lab.sheets[this.data.background]));
      const [width, height] = this.data.size;
      this.canvas = element("canvas", { width, height });
      this.canvas.setAttribute("aria-hidden", "true"); // the image below has the words
      await this.lab.decoded.get(this.state()[0]);
      this.drawPicture();
      this.image.after(this.canvas);
      new ResizeObserver(([{ target }]) => {
        const scrolls = target.scrollWidth > target.clientWidth; // on a phone, also by keys
        const given = { tabindex: "0", role: "group", "aria-label": this.lab.strings[this.data.title] };
        for (const [name, value] of Object.entries(given)) {
          if (scrolls) target.setAttribute(name, value);
          else target.removeAttribute(name);
        }
        this.readout.style.minHeight = "";
      }).observe(this.image.parentElement);
      this.root.prepend(element("div", { className: "explorer-controls" }, ...this.data.controls.map((control, which) =>
        (control.buttons ? buttons : slider)(control, `${this.root.dataset.explorer}-${which}`, (at) => this.move(which, at)))));
      this.root.dataset.ready = "";
      this.decodeNeighbours();
    }

    state(at = this.at) {
      const index = this.data.controls.reduce((sum, { texts }, which) => sum * texts.length + at[which], 0);
      return this.data.states[index];
    }

    move(which, at) {
      this.at[which] = at;
      const [, , kind, note, ...cells] = this.state();
      this.readout.style.minHeight = `${this.readout.offsetHeight}px`; // what is below does not jump up
      this.write(kind, this.lab.strings[note], cells.map((place) => this.lab.strings[place]));
      if (!this.drawPicture()) this.drawLater();
      this.decodeNeighbours(which);
    }

    write(kind, note, texts) {
      const names = texts.filter((_, i) => i % 2 === 0);
      const cells = names.map((name, i) => [name, texts[2 * i + 1]]);
      const said = kind ? note : cells.map((cell) => cell.join(" ")).join(", ");
      this.image.alt = `${this.lab.strings[this.data.title]}: ${said}`;
      if (kind) {
        this.readout.replaceChildren(element("p", { className: "explorer-wrong" }, ...prose(`${note}.`)));
        return;
      }
      const spans = cells.map(([name, value]) =>
        element("span", {}, element("small", {}, name), " ", element("b", {}, value)));
      this.readout.replaceChildren(element("div", { className: "explorer-cells" }, ...spans));
      if (note) this.readout.append(element("p", { className: "explorer-note" }, ...prose(note)));
    }

    /** Draw the state if its sheet is decoded; whether it was. */
    drawPicture() {
      const [place, row] = this.state();
      const sheet = this.lab.decoded.ready(place);
      if (!sheet) return false;
      const [left, top, width, height] = this.data.box;
      const pen = this.canvas.getContext("2d");
      pen.drawImage(this.background, 0, 0);
      pen.drawImage(sheet, 0, row * height, width, height, left, top, width, height);
      this.root.dataset.state = this.at.join(" ");
      return true;
    }

    async drawLater() {
      const place = this.state()[0];
      await this.lab.decoded.get(place);
      if (place === this.state()[0] && !this.drawPicture()) this.drawLater(); // forgotten while it was decoded
    }

    /** Decode what could be shown next, so that it is there when it is wanted. */
    async decodeNeighbours(moved) {
      const from = this.at.join(" "), near = this.neighbours(moved);
      near.forEach((place) => this.lab.decoded.ready(place)); // so that others are forgotten, and not these
      for (const place of near) {
        if (from !== this.at.join(" ")) return; // it has moved on
        await this.lab.decoded.get(place);
      }
    }

    /** The sheets of all states that one move of a control leads to: first of the one that moves now, the nearest first. */
    neighbours(moved) {
      const near = [];
      this.data.controls.forEach(({ texts }, which) => texts.forEach((_, at) => {
        const distance = Math.abs(at - this.at[which]) + (which === moved ? 0 : texts.length);
        near.push([distance, this.state(this.at.with(which, at))[0]]);
      }));
      near.sort(([a], [b]) => a - b);
      return [...new Set(near.map(([, place]) => place))].slice(0, KEPT - 2);
    }
  }

  // ---- its controls

  function slider({ label, hint, texts, start }, id, move) {
    const value = element("output", {}, texts[start]);
    const input = element("input", { type: "range", id, min: 0, max: texts.length - 1, step: 1, value: start, title: hint });
    const say = () => {
      value.value = texts[input.value];
      input.setAttribute("aria-valuetext", texts[input.value]);
    };
    input.addEventListener("input", () => { say(); move(Number(input.value)); });
    say();
    return element("div", { className: "explorer-slider" }, element("label", { htmlFor: id }, label), input, value);
  }

  function buttons({ label, hint, texts, start }, id, move) {
    const choices = texts.map((text, at) => {
      const input = element("input", { type: "radio", name: id, checked: at === start });
      input.addEventListener("change", () => move(at));
      return element("label", {}, input, element("span", {}, text));
    });
    return element("fieldset", { className: "explorer-buttons", title: hint }, element("legend", {}, label), ...choices);
  }

  /** Text and, between backquotes, code. */
  const prose = (text) => text.split("`").map((piece, i) => (i % 2 ? element("code", {}, piece) : piece));

  // ---- all of a page

  function open() {
    const watch = new IntersectionObserver((entries) => {
      for (const { isIntersecting, target } of entries) {
        if (!isIntersecting) continue;
        watch.unobserve(target);
        statesOf(target.dataset.explorer.split("-")[0]).then((lab) => new Explorer(target, lab).open(), () => {});
      }
    }, { rootMargin: NEAR });
    document.querySelectorAll(".explorer[data-explorer]").forEach((root) => watch.observe(root));
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", open);
  else open();
})();
