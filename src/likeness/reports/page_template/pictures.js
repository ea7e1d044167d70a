// A picture, or a box with its name where there is none; right and wrong have frames.
function pictureBox(source, name, told, verdict) {
  if (source) return h("img", { class: `picture ${verdict}`, src: source, alt: told, title: name, decoding: "async" });
  return h("div", { class: `picture box ${verdict}`, role: "img", "aria-label": told, title: name }, short(name.split("/").pop(), 28));
}
