'use strict';
/** What both pages need: elements, numbers as in the terminal report, colours, controls. */
const vstPage = (() => {
  const root = document.documentElement;
  const byId = (id) => document.getElementById(id);
  const make = (tag, text, parent, className) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (className) element.className = className;
    if (parent) parent.append(element);
    return element;
  };

  // Numbers as in the terminal report: three digits and a unit.
  const digits = (x) => {
    const size = Math.abs(x);
    if (size >= 1000) return Math.round(x).toLocaleString('en');
    return size === 0 ? '0' : String(+x.toPrecision(3));
  };
  const scaled = (x, units) => {
    if (x === null || x === undefined || !Number.isFinite(x)) return '–';
    let unit = units[0];
    for (const u of units) if (Math.abs(x) >= u[0] * 0.9995) unit = u;
    return `${digits(x / unit[0])} ${unit[1]}`;
  };
  const bytes = (x) => scaled(x, [[1, 'B'], [1024, 'KiB'], [2 ** 20, 'MiB'], [2 ** 30, 'GiB'], [2 ** 40, 'TiB']]);
  const time = (ns) => scaled(ns, [[1, 'ns'], [1e3, 'µs'], [1e6, 'ms'], [1e9, 's']]);
  const rate = (x) => (x === null || x === undefined ? '–' : `${digits(x)}/s`);
  const plain = (x) => (x === null || x === undefined ? '–' : digits(x));
  const share = (x) => (x === null || x === undefined ? '–' : x.toFixed(4));
  const binary = Array.from({ length: 50 }, (_, i) => 2 ** i);

  const palette = {
    light: ['#2563eb', '#d9480f', '#2b8a3e', '#9c36b5', '#c2255c', '#0b7285', '#866118', '#5c677d'],
    dark: ['#74a9ff', '#ff9f5a', '#6fd68a', '#d58cf0', '#ff85a8', '#4fd0e0', '#e0b550', '#aab4c2'],
  };
  let theme = (() => {
    const stored = (() => { try { return localStorage.getItem('vst-theme'); } catch { return null; } })();
    return stored || (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light');
  })();
  root.dataset.theme = theme;
  const colours = () => palette[theme];

  /** How an axis looks; read anew for each drawing, because the theme changes it. */
  const axis = () => {
    const style = getComputedStyle(root);
    return {
      stroke: style.getPropertyValue('--soft'),
      grid: { stroke: style.getPropertyValue('--line'), width: 1 },
      ticks: { stroke: style.getPropertyValue('--line'), width: 1 },
      font: '11px system-ui, sans-serif',
    };
  };
  /** What every chart's drawing begins with; `x` adds to its horizontal axis. */
  const plotOptions = (chart, xFormat, x) => ({
    width: Math.max(280, chart.holder.clientWidth - 4),
    height: chart.height || 250,
    scales: { x: { time: false }, y: { distr: chart.log ? 3 : 1, ...(chart.y ? { range: chart.y } : {}) } },
    axes: [
      { ...axis(), values: (u, ticks) => ticks.map(xFormat), space: 70, ...x },
      { ...axis(), size: 78, ...(chart.format === bytes ? { incrs: binary } : {}),
        values: (u, ticks) => ticks.map((v) => (v === null ? '' : chart.format(v))) },
    ],
  });
  /** Empties a chart's place before it is drawn anew. */
  const clear = (chart) => {
    if (chart.plot) chart.plot.destroy();
    chart.plot = null;
    chart.holder.replaceChildren();
  };
  const nothing = (chart) => make('p', chart.empty || 'nothing was recorded', chart.holder, 'empty');

  // Percentiles are drawn by their number of nines.
  const nines = (quantiles) => quantiles.map((q) => -Math.log10(1 - q));
  const percentile = (v) => (v === null ? '–' : `p${+(100 * (1 - 10 ** -v)).toPrecision(Math.max(2, Math.ceil(v) + 1))}`);
  const recallRange = (u, low, high) => [Math.min(low, 0.95) - 0.01, Math.max(high, 1) + 0.005];

  /** A place for each chart, with a choice where it has one. */
  const cards = (charts, draw) => charts.forEach((chart) => {
    const card = make('div', undefined, byId('charts'), chart.wide ? 'chart wide' : 'chart');
    card.id = `chart-${chart.id}`;
    make('h2', chart.title, card);
    make('p', chart.help, card);
    if (chart.choices) {
      const choice = make('select', undefined, card);
      chart.choices.of.forEach(([value, text]) => { make('option', text, choice).value = value; });
      choice.addEventListener('change', () => { chart.choices.set(choice.value); draw(chart); });
    }
    chart.holder = make('div', undefined, card);
  });
  const line = (table, cells, tag, tone) => {
    const row = make('tr', undefined, table, tone);
    cells.forEach((cell) => make(tag, cell, row));
    return row;
  };
  // Figures of a phase behind its two leading columns.
  const figureNames = ['length', 'offered', 'achieved', 'p50', 'p95', 'p99', 'p99.9', 'p99.99', 'max', 'errors', 'recall', 'net B/vector'];
  const figures = (p) => [
    p.length_s === null ? '–' : `${digits(p.length_s)} s`, rate(p.offered), rate(p.achieved), p.p50, p.p95, p.p99, p.p999, p.p9999,
    p.max, plain(p.errors), share(p.recall), plain(p.net_bytes),
  ];

  /** The controls: a phase of these names, boxes for nodes or runs, dark or light. */
  const controls = (names, partsName, parts, chosen, choosePhase, refresh) => {
    const select = byId('phase');
    make('option', 'all', select).value = '';
    names.forEach((name) => { make('option', name, select).value = name; });
    select.addEventListener('change', () => choosePhase(select.value));
    byId('reset').addEventListener('click', () => { select.value = ''; choosePhase(''); });
    byId('parts').firstElementChild.textContent = partsName;
    parts.forEach(([id, name, colour]) => {
      const label = make('label', undefined, byId('parts'));
      const box = make('input', undefined, label);
      box.type = 'checkbox';
      box.checked = true;
      box.addEventListener('change', () => {
        if (box.checked) chosen.add(id); else chosen.delete(id);
        refresh();
      });
      const text = make('span', ` ${name}`, label);
      const paint = () => { if (colour !== undefined) text.style.color = colours()[colour % colours().length]; };
      paint();
      byId('theme').addEventListener('click', () => setTimeout(paint));
    });
    byId('theme').addEventListener('click', () => {
      theme = theme === 'dark' ? 'light' : 'dark';
      root.dataset.theme = theme;
      try { localStorage.setItem('vst-theme', theme); } catch { /* a page from a file may keep nothing */ }
      refresh();
    });
    let waiting = 0;
    addEventListener('resize', () => { clearTimeout(waiting); waiting = setTimeout(refresh, 150); });
  };
  return {
    root, byId, make, digits, bytes, time, rate, plain, share, colours, plotOptions, clear, nothing, nines, percentile,
    recallRange, cards, line, figureNames, figures, controls, binary,
  };
})();
