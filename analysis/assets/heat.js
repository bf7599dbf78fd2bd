'use strict';
/** The map of size classes as a chart: a row of cells for each class, as dark as it keeps bytes. */
const vstHeat = (heat, { bytes, digits }) => {
  const shows = {
    free: ['kept beyond what is in use', (used, kept) => Math.max(0, kept - used)],
    kept: ['pages kept', (used, kept) => kept],
    used: ['in use', (used) => used],
  };
  let show = 'free';
  let sums = { used: [], kept: [], shown: [] };
  // Classes that have something to show, from below.
  let rows = [];
  const sum = (chosen, field) => heat.classes.map((c, i) => heat.times_s.map((t, j) => heat.nodes
    .filter((n) => n.id === '*' || chosen.has(n.id)).reduce((all, n) => all + n[field][i][j], 0)));
  // The boundaries of a column: halfway to its neighbours.
  const edges = heat.times_s.map((t, i) => {
    const before = i > 0 ? (t - heat.times_s[i - 1]) / 2 : 0;
    const after = i + 1 < heat.times_s.length ? (heat.times_s[i + 1] - t) / 2 : 0;
    return [t - (before || after || 0.5), t + (after || before || 0.5)];
  });
  const label = (c) => (c.size >= 1024 && c.size % 1024 === 0 ? bytes(c.size) : `${c.size} B`);
  return {
    id: 'classes', title: 'Size classes of the allocator', wide: true, times: heat.times_s, format: bytes,
    help: 'a row for each size of region; the stronger the colour, the more bytes; what stays strong after a shrink is fragmentation',
    empty: heat.missing || 'size classes were not sampled', series: [],
    choices: { of: Object.entries(shows).map(([value, [text]]) => [value, text]), set: (value) => { show = value; } },
    // A row more for the names of phases.
    y: () => [-0.6, rows.length + 0.4],
    prepare(chosen) {
      sums = { used: sum(chosen, 'used'), kept: sum(chosen, 'kept') };
      sums.shown = sums.used.map((row, i) => row.map((used, j) => shows[show][1](used, sums.kept[i][j])));
      rows = heat.classes.map((c, i) => i).filter((i) => sums.shown[i].some((v) => v));
      this.height = 90 + 16 * rows.length;
      const total = heat.times_s.map((t, j) => sums.shown.reduce((all, row) => all + row[j], 0));
      const any = heat.nodes.some((n) => n.id === '*' || chosen.has(n.id));
      return any && rows.length ? [{ label: `${shows[show][0]}, all classes`, values: total, colour: 0 }] : [];
    },
    extend: (options, ink) => {
      options.scales.total = { auto: true };
      options.series[1] = {
        ...options.series[1], scale: 'total', paths: () => null, points: { show: false },
        value: (u, total, series, at) => {
          if (at === null || at === undefined) return '–';
          const i = rows[Math.round(u.posToVal(u.cursor.top ?? -1, 'y'))];
          const c = heat.classes[i];
          const whole = bytes(sums.shown.reduce((all, row) => all + row[at], 0));
          if (!c || u.cursor.top === undefined || u.cursor.top < 0) return whole;
          const [used, kept] = [sums.used[i][at], sums.kept[i][at]];
          return `${whole}; ${label(c)}: ${bytes(used)} in use of ${bytes(kept)} (${digits(kept ? (100 * used) / kept : 100)} %)`;
        },
      };
      options.axes[1] = {
        ...options.axes[1], splits: () => rows.map((c, i) => i), values: (u, at) => at.map((i) => label(heat.classes[rows[i]])),
        grid: { show: false }, ticks: { show: false }, space: 1,
      };
      options.hooks.draw = [(u) => {
        const { ctx, bbox } = u;
        const most = sums.shown.reduce((all, row) => Math.max(all, ...row), 1);
        ctx.save();
        ctx.beginPath();
        ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
        ctx.clip();
        ctx.fillStyle = ink;
        rows.forEach((of, i) => {
          const top = u.valToPos(i + 0.46, 'y', true);
          const bottom = u.valToPos(i - 0.46, 'y', true);
          sums.shown[of].forEach((value, j) => {
            if (!value) return;
            const [from, to] = edges[j].map((t) => u.valToPos(t, 'x', true));
            // A root, so that small classes are seen beside large ones.
            ctx.globalAlpha = Math.max(0.04, Math.sqrt(value / most));
            ctx.fillRect(from, top, to - from + 0.5, bottom - top);
          });
        });
        ctx.restore();
      }];
    },
  };
};
