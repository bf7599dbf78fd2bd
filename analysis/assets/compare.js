'use strict';
(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const { root, byId, make, digits, bytes, time, rate, plain, share, binary, palette, firstTheme } = vstPage;
  let theme = firstTheme();
  root.dataset.theme = theme;
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
  const nines = data.runs[0].quantiles.map((q) => -Math.log10(1 - q));
  define('percentiles', 'Percentile curves', 'response time, in a closed loop service time; each tick is one nine more', {
    format: time, log: true, still: true,
    xFormat: (v) => (v === null ? '–' : `p${+(100 * (1 - 10 ** -v)).toPrecision(Math.max(2, Math.ceil(v) + 1))}`),
    series: (run) => run.curves
      .filter((c) => !phase || c.phase === phase)
      .filter((c) => c.time === 'response' || !run.curves.some((o) => o.phase === c.phase && o.time === 'response' && o.operation === c.operation))
      .map((c) => ({ name: `${c.phase} ${c.operation}`, x: nines, values: c.values })),
  });
  define('recall', 'Recall over time', 'hits over possible hits of each interval', {
    format: share, y: (u, low, high) => [Math.min(low, 0.95) - 0.01, Math.max(high, 1) + 0.005],
    series: (run) => [{ x: run.recall_s, values: run.recall }], empty: 'no answers were judged',
  });

  const draw = (chart) => {
    if (chart.plot) chart.plot.destroy();
    chart.plot = null;
    chart.holder.replaceChildren();
    const colours = palette[theme];
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
      make('p', chart.empty || 'nothing was recorded', chart.holder, 'empty');
      return;
    }
    const style = getComputedStyle(root);
    const axis = {
      stroke: style.getPropertyValue('--soft'), grid: { stroke: style.getPropertyValue('--line'), width: 1 },
      ticks: { stroke: style.getPropertyValue('--line'), width: 1 }, font: '11px system-ui, sans-serif',
    };
    const format = chart.format;
    const options = {
      width: Math.max(280, chart.holder.clientWidth - 4), height: 250,
      scales: { x: { time: false }, y: { distr: chart.log ? 3 : 1, ...(chart.y ? { range: chart.y } : {}) } },
      axes: [
        { ...axis, values: (u, ticks) => ticks.map(chart.xFormat || elapsed), space: 70 },
        { ...axis, size: 78, ...(format === bytes ? { incrs: binary } : {}), values: (u, ticks) => ticks.map((v) => (v === null ? '' : format(v))) },
      ],
      series: [
        { label: chart.still ? 'percentile' : 'time', value: (u, v) => (chart.xFormat || elapsed)(v) },
        ...shown.map((s) => ({ label: s.label, stroke: s.colour, dash: s.dash, width: 1.5, spanGaps: false, value: (u, v) => format(v) })),
      ],
    };
    // Runs have instants of their own; where another has one, a line goes on (undefined), at its own gaps it breaks (null).
    const joined = chart.still ? [nines, ...shown.map((s) => s.values)] : uPlot.join(shown.map((s) => [s.x, s.values]));
    chart.plot = new uPlot(options, joined, chart.holder);
  };
  const refresh = () => charts.forEach(draw);

  for (const chart of charts) {
    const card = make('div', undefined, byId('charts'), 'chart');
    card.id = `chart-${chart.id}`;
    make('h2', chart.title, card);
    make('p', chart.help, card);
    chart.holder = make('div', undefined, card);
  }
  data.runs.forEach((run) => {
    const line = make('p', undefined, byId('notes'));
    make('strong', run.title, line);
    line.append(': ');
    make('span', run.verdict.headline, line, run.verdict.tone);
  });
  const line = (table, cells, tag, tone) => {
    const row = make('tr', undefined, table, tone);
    cells.forEach((cell) => make(tag, cell, row));
  };
  data.comparisons.forEach((c) => {
    const place = byId('differences');
    make('h2', `${c.candidate} against ${data.runs[0].title}: ${c.headline}`, place, c.tones.includes('bad') ? 'bad' : '');
    const table = make('table', undefined, make('div', undefined, place, 'scroll'), 'figures');
    line(table, data.header, 'th');
    c.rows.forEach((cells, i) => line(table, cells, 'td', c.tones[i]));
    make('p', c.explanation, place, 'soft');
    c.doubts.forEach((doubt) => make('p', `in doubt: ${doubt}`, place, 'warn'));
  });
  byId('phases').className = 'figures';
  line(byId('phases'), ['phase', 'run', 'length', 'offered', 'achieved', 'p50', 'p95', 'p99', 'max', 'errors', 'recall', 'net B/vector'], 'th');
  const names = [...new Set(data.runs.flatMap((r) => r.table.map((p) => p.phase)))];
  names.forEach((name) => data.runs.forEach((run) => run.table.filter((p) => p.phase === name).forEach((p) => line(byId('phases'), [
    p.phase, run.title, p.length_s === null ? '–' : `${digits(p.length_s)} s`, rate(p.offered), rate(p.achieved), p.p50, p.p95,
    p.p99, p.max, plain(p.errors), share(p.recall), plain(p.net_bytes),
  ], 'td'))));

  const select = byId('phase');
  make('option', 'all', select).value = '';
  names.forEach((name) => { make('option', name, select).value = name; });
  select.addEventListener('change', () => { phase = select.value; refresh(); });
  data.runs.forEach((run, i) => {
    const label = make('label', undefined, byId('nodes'));
    const box = make('input', undefined, label);
    box.type = 'checkbox';
    box.checked = true;
    box.addEventListener('change', () => { if (box.checked) chosen.add(i); else chosen.delete(i); refresh(); });
    make('span', ` ${run.title}`, label).style.color = palette[theme][i % palette[theme].length];
  });
  byId('theme').addEventListener('click', () => {
    theme = theme === 'dark' ? 'light' : 'dark';
    root.dataset.theme = theme;
    try { localStorage.setItem('vst-theme', theme); } catch { /* a page from a file may keep nothing */ }
    refresh();
  });
  let waiting = 0;
  addEventListener('resize', () => { clearTimeout(waiting); waiting = setTimeout(refresh, 150); });
  refresh();
  window.vst = { charts };
})();
