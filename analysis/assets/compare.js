'use strict';
(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const {
    byId, make, digits, bytes, time, rate, share, colours: inks, plotOptions, clear, nothing, nines, percentile, recallRange,
    cards, line, figureNames, figures, controls,
  } = vstPage;
  const chosen = new Set(data.runs.map((r, i) => i));
  let phase = '';

  const add = (columns) => (columns.length
    ? columns[0].map((v, i) => columns.reduce((all, c) => (all === null || c[i] === null ? null : all + c[i]), 0)) : []);
  const primaries = (run, pick) => add(run.nodes.filter((n) => !n.replica).map(pick));
  // Over operations: null only where none had anything.
  const over = (run, pick) => run.load_s.map((t, i) => run.operations.reduce((all, o) => {
    const v = pick(o)[i];
    return v === null ? all : (all || 0) + v;
  }, null));
  const worst = (run, pick) => run.load_s.map((t, i) => run.operations.reduce((all, o) => {
    const v = pick(o)[i];
    return v === null || v === undefined ? all : Math.max(all || 0, v);
  }, null));
  /** The part of a series that is of the chosen phase, its times from that phase's start. */
  const part = (run, times, values) => {
    const found = run.phases.find((p) => p.name === phase);
    if (phase && !found) return [[], []];
    const [from, to] = found ? [found.start_s, found.end_s] : [-Infinity, Infinity];
    const at = times.map((t, i) => i).filter((i) => times[i] >= from && times[i] <= to);
    return [at.map((i) => times[i] - (found ? from : 0)), at.map((i) => values[i])];
  };

  const elapsed = (s) => (s === null || s === undefined ? '–' : `${digits(s)} s`);
  const charts = [];
  const define = (id, title, help, spec) => charts.push({ id, title, help, ...spec });
  define('memory', 'Memory used', 'used_memory of the primaries', {
    format: bytes, series: (run) => [{ x: run.ticks_s, values: primaries(run, (n) => n.used) }],
  });
  define('resident', 'Resident memory', 'used_memory_rss of the primaries', {
    format: bytes, series: (run) => [{ x: run.ticks_s, values: primaries(run, (n) => n.rss) }],
  });
  define('throughput', 'Throughput', 'requests that ended well, over all operations', {
    format: rate, series: (run) => [{ x: run.load_s, values: over(run, (o) => o.ok) }],
  });
  define('latency', 'p99 over time', 'the slowest operation: response time, in a closed loop service time', {
    format: time, log: true,
    series: (run) => [{ x: run.load_s, values: worst(run, (o) => o.response_p99.map((v, i) => v ?? o.service_p99[i])) }],
  });
  const positions = nines(data.runs[0].quantiles);
  define('percentiles', 'Percentile curves', 'response time, in a closed loop service time; each tick is one nine more', {
    format: time, log: true, still: true,
    xFormat: percentile,
    series: (run) => run.curves
      .filter((c) => !phase || c.phase === phase)
      .filter((c) => c.time === 'response' || !run.curves.some((o) => o.phase === c.phase && o.time === 'response' && o.operation === c.operation))
      .map((c) => ({ name: `${c.phase} ${c.operation}`, x: positions, values: c.values })),
  });
  define('recall', 'Recall over time', 'hits over possible hits of each interval', {
    format: share, y: recallRange,
    series: (run) => [{ x: run.recall_s, values: run.recall }], empty: 'no answers were judged',
  });

  const draw = (chart) => {
    clear(chart);
    const colours = inks();
    const shown = [];
    data.runs.forEach((run, i) => {
      if (!chosen.has(i)) return;
      chart.series(run).forEach((s, j) => {
        const [x, values] = chart.still ? [s.x, s.values] : part(run, s.x, s.values);
        if (values.some((v) => v !== null && v !== undefined)) {
          shown.push({ label: s.name ? `${run.title}: ${s.name}` : run.title, x, values, colour: colours[i % colours.length], dash: j ? [2 * j + 1, 3] : undefined });
        }
      });
    });
    if (!shown.length) {
      nothing(chart);
      return;
    }
    const format = chart.format;
    const options = {
      ...plotOptions(chart, chart.xFormat || elapsed),
      series: [
        { label: chart.still ? 'percentile' : 'time', value: (u, v) => (chart.xFormat || elapsed)(v) },
        ...shown.map((s) => ({ label: s.label, stroke: s.colour, dash: s.dash, width: 1.5, spanGaps: false, value: (u, v) => format(v) })),
      ],
    };
    // Runs have instants of their own; where another has one, a line goes on (undefined), at its own gaps it breaks (null).
    const joined = chart.still ? [positions, ...shown.map((s) => s.values)] : uPlot.join(shown.map((s) => [s.x, s.values]));
    chart.plot = new uPlot(options, joined, chart.holder);
  };
  const refresh = () => charts.forEach(draw);

  cards(charts, draw);
  byId('title').textContent = 'Runs side by side';
  data.runs.forEach((run) => {
    const note = make('p', undefined, byId('notes'));
    make('strong', run.title, note);
    note.append(': ');
    make('span', run.verdict.headline, note, run.verdict.tone);
  });
  byId('differences').hidden = false;
  data.comparisons.forEach((c) => {
    const place = byId('differences');
    make('h2', `${c.candidate} against ${data.runs[0].title}: ${c.headline}`, place, c.tones.includes('bad') ? 'bad' : '');
    const table = make('table', undefined, make('div', undefined, place, 'scroll'), 'figures');
    line(table, data.header, 'th');
    c.rows.forEach((cells, i) => line(table, cells, 'td', c.tones[i]));
    make('p', c.explanation, place, 'soft');
    c.doubts.forEach((doubt) => make('p', `in doubt: ${doubt}`, place, 'warn'));
  });
  line(byId('phases'), ['phase', 'run', ...figureNames], 'th');
  const names = [...new Set(data.runs.flatMap((r) => r.table.map((p) => p.phase)))];
  names.forEach((name) => data.runs.forEach((run) => run.table.filter((p) => p.phase === name)
    .forEach((p) => line(byId('phases'), [p.phase, run.title, ...figures(p)], 'td'))));
  byId('help').textContent = 'Time runs from the start of each run, or of the chosen phase in each.';

  controls(names, 'Runs', data.runs.map((run, i) => [i, run.title, i]), chosen, (name) => { phase = name; refresh(); }, refresh);
  refresh();
  window.vst = { charts };
})();
