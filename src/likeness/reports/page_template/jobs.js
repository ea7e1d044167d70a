const jobs = data.jobs;
const done = jobs.map((_, place) => place).filter((place) => known(jobs[place].val?.[0]));
const hasSeeds = data.heads.some((head) => head.jobs.length > 1);
const best = data.winner ? data.winner.job : null;
const headOf = new Map(data.heads.flatMap((head, place) => head.jobs.map((job) => [job, place])));
const view = { words: [], state: "", values: new Map(), floor: null, ceiling: null, sort: "val", down: true, open: new Set(), all: false, active: null };

const described = (job) => data.options.map((option, i) => `${option.label}=${job.options[i]}`).join(" ");
const named = (job) => [`job ${job.name}`, described(job), known(job.seed) && hasSeeds ? `seed=${job.seed}` : ""].filter(Boolean).join(" ");

function isBrushed(place) {
  const job = jobs[place];
  for (const [axis, values] of view.values) if (!values.has(job.options[axis])) return false;
  const value = job.val?.[0];
  if (view.floor !== null && !(value >= view.floor && value <= view.ceiling)) return false;
  return true;
}
const hasBrush = () => view.values.size > 0 || view.floor !== null;
