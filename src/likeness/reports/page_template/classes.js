function showClasses() {
  const found = data.classes;
  if (!found) return;
  byId("classes").hidden = false;
  const values = found.values.flat().filter(known);
  const shade = scale(values, 0, 1);
  const left = [found.left_out.classes ? `the ${found.names.length} classes on which heads differ most, of ${found.names.length + found.left_out.classes}` : "", found.left_out.heads ? `the best ${found.rows.filter((each) => known(each.job)).length} heads, ${count(found.left_out.heads)} more are left out` : ""].filter(Boolean);
  byId("classes-note").textContent = `hit@1 on test, percent; baselines first, then heads, best on val first${hasSeeds ? ", averaged over seeds" : ""}.${left.length ? ` Shown are ${left.join(" and ")}.` : ""}`;
  byId("heat").classList.toggle("tall", found.names.length > 10);
  const head = h("thead", null, h("tr", null, h("th", null), ...found.names.map((name, i) => h("th", { scope: "col", title: name }, h("span", null, short(name, 24), known(found.counts[i]) ? ` (${count(found.counts[i])})` : "")))));
  const label = (each) => (known(each.job) ? `${each.name} · ${described(jobs[each.job])}` : each.name);
  const cell = (value) => h("td", { "--t": known(value) ? shade(value).toFixed(3) : 0 }, percent(value));
  const body = found.rows.map((each, i) => h("tr", { "data-job": each.job }, h("th", { scope: "row", title: label(each) }, label(each)), ...found.values[i].map(cell)));
  byId("heat").append(head, h("tbody", null, ...body));
}
