'use strict';
/** What both pages need: elements, numbers as in the terminal report, colours. */
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
  const firstTheme = () => {
    const stored = (() => { try { return localStorage.getItem('vst-theme'); } catch { return null; } })();
    return stored || (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light');
  };
  return { root, byId, make, digits, scaled, bytes, time, rate, plain, share, binary, palette, firstTheme };
})();
