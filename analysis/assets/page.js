'use strict';
(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const {
    root, byId, make, digits, bytes, time, rate, plain, share, colours: inks, plotOptions, clear, nothing, nines, percentile,
    recallRange, cards, line, figureNames, figures, controls, binary,
  } = vstPage;
  // One form for a whole axis: seconds, or hours, minutes and seconds where the run is longer.
  const elapsed = (s) => {
    if (s === null || s === undefined) return '–';
    if (data.length_s < 120) return `${digits(s)} s`;
    const t = Math.round(s);
    const two = (n) => String(n).padStart(2, '0');
    const minutes = Math.floor(t / 60);
    const rest = `${two(minutes % 60)}:${two(t % 60)}`;
    return data.length_s < 3600 ? rest : `${Math.floor(minutes / 60)}:${rest}`;
  };
  // Ticks at round numbers of the unit that is shown.
  const seconds = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400];

  // What is shown: nodes that are chosen, and the stretch of time.
  const chosen = new Set(data.nodes.map((n) => n.id));
  let range = null;
  let phase = '';
  const whole = [0, data.length_s || 1];

  const charts = [];
  const sync = uPlot.sync('time');

  const bands = {
    hooks: {
      drawClear: [(u) => {
        if (!u.vst.onTime) return;
        const { ctx, bbox } = u;
        const style = getComputedStyle(root);
        ctx.save();
        ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
        ctx.textBaseline = 'top';
        let free = -Infinity;
        data.phases.forEach((p, i) => {
          const from = Math.max(u.valToPos(p.start_s, 'x', true), bbox.left);
          const to = Math.min(u.valToPos(p.end_s, 'x', true), bbox.left + bbox.width);
          if (to <= from) return;
          if (p.beside) {
            // A strip at the bottom, for the band is that of the phase which it runs beside.
            const height = 14 * devicePixelRatio;
            const top = bbox.top + bbox.height - height;
            ctx.fillStyle = style.getPropertyValue('--band');
            ctx.fillRect(from, top, to - from, height);
            if (ctx.measureText(p.name).width + 8 < to - from) {
              ctx.fillStyle = style.getPropertyValue('--soft');
              ctx.fillText(p.name, from + 4, top + 2);
            }
            return;
          }
          if (i % 2 === 0 || p.name === phase) {
            ctx.fillStyle = style.getPropertyValue('--band');
            ctx.fillRect(from, bbox.top, to - from, bbox.height);
          }
          const width = ctx.measureText(p.name).width;
          if (width + 8 < to - from && from > free) {
            ctx.fillStyle = style.getPropertyValue('--soft');
            ctx.fillText(p.name, from + 4, bbox.top + 3);
            free = from + width;
          }
        });
        ctx.restore();
      }],
    },
  };

  /** One chart: x and series of {label, node?, values, dash?, points?, scale?}. */
  const define = (id, title, help, spec) => charts.push({ id, title, help, ...spec });

  const draw = (chart) => {
    clear(chart);
    const shown = chart.prepare ? chart.prepare(chosen) : chart.series.filter((s) => !s.node || chosen.has(s.node));
    const points = shown.reduce((n, s) => n + s.values.filter((v) => v !== null && v !== undefined).length, 0);
    if (!points) {
      nothing(chart);
      return;
    }
    const format = chart.format;
    const onTime = !chart.x;
    const colours = inks();
    const base = plotOptions(chart, chart.xFormat || elapsed, {
      ...(onTime && data.length_s >= 120 ? { incrs: [0.001, 0.01, 0.1, 0.5, ...seconds] } : {}),
      ...(chart.xFormat === bytes ? { incrs: binary } : {}),
    });
    if (onTime) base.scales.x.range = () => range || whole;
    const options = {
      ...base,
      plugins: [bands],
      cursor: { drag: { x: true, y: false }, ...(onTime ? { sync: { key: sync.key } } : {}) },
      series: [
        { label: chart.xLabel || 'time', value: (u, v) => (chart.xFormat || elapsed)(v) },
        ...shown.map((s) => {
          const colour = colours[Math.max(0, chart.series.indexOf(s)) % colours.length];
          return {
            label: s.label,
            stroke: s.colour === undefined ? colour : colours[s.colour % colours.length],
            width: s.points ? 0 : 1.5,
            dash: s.dash,
            spanGaps: false,
            paths: s.points ? () => null : undefined,
            // A line needs two points: one that stands alone (a load of a second) would not be seen.
            points: { show: true, size: 5, fill: s.points ? colour : undefined, ...(s.points ? {} : { filter: (u, i) => alone(u.data[i]) }) },
            value: (u, v) => format(v),
          };
        }),
      ],
      hooks: onTime ? {
        setSelect: [(u) => {
          if (u.select.width < 4) return;
          range = [u.posToVal(u.select.left, 'x'), u.posToVal(u.select.left + u.select.width, 'x')];
          u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
          refresh();
        }],
        ready: [(u) => u.over.addEventListener('dblclick', () => { range = null; choosePhase(''); })],
      } : {},
    };
    if (onTime) options.cursor.drag.setScale = false;
    if (chart.extend) chart.extend(options, colours[0]);
    const x = chart.x || chart.times;
    chart.plot = new uPlot(options, [x, ...shown.map((s) => s.values)], (u, init) => {
      u.vst = { onTime };
      chart.holder.append(u.root);
      init();
    });
  };

  /** Positions of values without a neighbour. */
  const alone = (values) => {
    const none = (v) => v === null || v === undefined;
    const found = [];
    values.forEach((v, i) => { if (!none(v) && none(values[i - 1]) && none(values[i + 1])) found.push(i); });
    return found;
  };

  const refresh = () => charts.forEach(draw);

  const choosePhase = (name) => {
    phase = name;
    byId('phase').value = name;
    const found = data.phases.find((p) => p.name === name);
    range = found ? [found.start_s, Math.max(found.end_s, found.start_s + 0.001)] : null;
    for (const row of byId('phases').rows) row.classList.toggle('chosen', row.dataset.phase === name && name !== '');
    const curves = charts.find((c) => c.id === 'percentiles');
    if (curves) curves.series = curves.all.filter((s) => !found || s.phase === name);
    const scatter = charts.find((c) => c.id === 'correlation');
    if (scatter) scatter.series = scatter.all.filter((s) => !found || s.phase === name);
    refresh();
  };

  // --- the charts ---------------------------------------------------------------------------------------------
  const nodeSeries = (pick) => data.nodes.map((n, i) => ({
    label: n.name, node: n.id, colour: i, dash: n.replica ? [4, 4] : undefined, values: pick(n),
  }));
  const ratio = (a, b) => a.map((v, i) => (v === null || !b[i] ? null : v / b[i]));
  define('memory', 'Memory used by node', 'used_memory; replicas dashed', {
    times: data.ticks_s, format: bytes, series: nodeSeries((n) => n.used),
  });
  define('resident', 'Resident memory by node', 'used_memory_rss, what the machine must have', {
    times: data.ticks_s, format: bytes, series: nodeSeries((n) => n.rss),
  });
  define('fragmentation', 'Fragmentation by node', 'resident over used memory', {
    times: data.ticks_s, format: plain, series: nodeSeries((n) => ratio(n.rss, n.used)),
  });
  define('swap', 'Swapped out by node', 'memory of the server processes that lies in swap, as the operating system says', {
    times: data.ticks_s, format: bytes, series: nodeSeries((n) => n.swap),
    empty: 'the servers run on other machines than the workers',
  });
  define('faults', 'Page faults by node', 'per second since the tick before; a fault without a read from disk is a page that was touched anew', {
    times: data.ticks_s, format: rate, series: data.nodes.flatMap((n, i) => [
      { label: `${n.name} without a read`, node: n.id, colour: i, values: n.minor_faults },
      { label: `${n.name} from disk or swap`, node: n.id, colour: i, dash: [3, 3], values: n.major_faults },
    ]).filter((s) => s.values.some((v) => v !== null)),
    empty: 'the servers run on other machines than the workers',
  });
  const heat = vstHeat(data.heat, { bytes, digits });
  define(heat.id, heat.title, heat.help, heat);
  define('throughput', 'Throughput', 'due is what the schedule asked for (a closed loop: what was taken up)', {
    times: data.load_s, format: rate,
    series: data.operations.flatMap((o, i) => [
      { label: `${o.name} due`, values: o.due, dash: [5, 4], colour: 3 * i },
      { label: `${o.name} ok`, values: o.ok, colour: 3 * i + 2 },
      { label: `${o.name} failed`, values: o.failed, colour: 3 * i + 1 },
    ]).filter((s) => s.values.some((v) => v)),
  });
  define('latency', 'Latency over time', 'response is due to reply, service is sent to reply', {
    times: data.load_s, format: time, log: true,
    series: data.operations.flatMap((o, i) => [
      { label: `${o.name} response p50`, values: o.response_p50, colour: 2 * i },
      { label: `${o.name} response p99`, values: o.response_p99, colour: 2 * i + 1 },
      { label: `${o.name} response p99.99`, values: o.response_p9999, colour: 2 * i + 4 },
      { label: `${o.name} service p50`, values: o.service_p50, colour: 2 * i, dash: [3, 3] },
      { label: `${o.name} service p99`, values: o.service_p99, colour: 2 * i + 1, dash: [3, 3] },
      { label: `${o.name} service p99.99`, values: o.service_p9999, colour: 2 * i + 4, dash: [3, 3] },
    ]).filter((s) => s.values.some((v) => v)),
  });
  const asked = [...new Set(data.curves.map((c) => `${c.phase} ${c.operation}`))];
  const curves = data.curves.map((c) => ({
    label: `${c.phase} ${c.operation} ${c.time}`, phase: c.phase, values: c.values, colour: asked.indexOf(`${c.phase} ${c.operation}`),
    dash: c.time === 'service' ? [3, 3] : undefined,
  }));
  define('percentiles', 'Percentile curves', 'response solid, service dashed; each tick is one nine more', {
    x: nines(data.quantiles), xLabel: 'percentile', log: true, format: time, series: curves, all: curves, xFormat: percentile,
  });
  define('recall', 'Recall over time', 'hits over possible hits of each interval', {
    times: data.recall_s, format: share, y: recallRange,
    series: [{ label: 'recall', values: data.recall, colour: 2 }],
    empty: 'no answers were judged in this run',
  });
  const clouds = data.correlation.map((c, i) => ({ ...c, i }));
  const axisX = [...new Set(clouds.flatMap((c) => c.used))].sort((a, b) => a - b);
  const scattered = clouds.map((c) => {
    const at = new Map(c.used.map((u, j) => [u, c.p99[j]]));
    return { label: c.phase, phase: c.phase, points: true, colour: c.i, values: axisX.map((u) => at.get(u) ?? null) };
  });
  define('correlation', 'Memory against latency', 'each point is one interval: memory of the primaries, p99 of the phase', {
    x: axisX, xLabel: 'used memory', xFormat: bytes, log: true, format: time, series: scattered, all: scattered,
  });

  // --- the rest of the page -----------------------------------------------------------------------------------
  byId('title').textContent = data.title;
  make('span', data.verdict.headline, byId('verdict'), data.verdict.tone);
  const list = (title, notes, tone) => {
    if (!notes.length) return;
    make('h2', title, byId('notes'), tone);
    const items = make('ul', undefined, byId('notes'));
    notes.forEach((n) => make('li', n, items));
  };
  list('Why it is not valid', data.verdict.not_valid, 'bad');
  list('How the target could not follow', data.verdict.saturated, 'warn');
  list('Findings', data.verdict.findings, 'warn');
  if (!byId('notes').children.length) make('p', 'No findings.', byId('notes'));

  line(byId('phases'), ['phase', 'step', ...figureNames], 'th');
  data.table.forEach((p) => {
    const row = line(byId('phases'), [p.phase, p.step, ...figures(p)], 'td');
    row.dataset.phase = p.phase;
    row.addEventListener('click', () => choosePhase(p.phase));
  });
  byId('ran').hidden = !data.scenario;
  byId('scenario').textContent = data.scenario;
  byId('help').textContent = 'Time runs from the start of the run; click a row of the table to see its phase.';

  cards(charts, draw);
  controls(data.phases.map((p) => p.name), 'Nodes', data.nodes.map((n) => [n.id, n.name]), chosen, choosePhase, refresh);
  addEventListener('beforeprint', () => charts.forEach((c) => c.plot && c.plot.setSize({ width: 640, height: c.height || 230 })));
  addEventListener('afterprint', refresh);
  refresh();
  window.vst = { charts, choosePhase };
})();
