element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.classList.contains("back")) trigger("back");
  else if (button.dataset.row) trigger("pick", { side: Number(button.dataset.side), row: button.dataset.row });
});
watch("value", () => {
  const arrived = element.querySelector("[data-arrived]");
  if (!arrived) return;
  arrived.focus({ preventScroll: true });
  const { top } = arrived.getBoundingClientRect();
  if (top < 0 || top > innerHeight / 2) arrived.closest("section").scrollIntoView();
});
