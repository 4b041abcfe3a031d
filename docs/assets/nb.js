// Formulas and plotly figures, drawn from files beside this one. Without KaTeX a formula stays as its LaTeX source.
(() => {
  const here = new URL(".", document.currentScript.src);

  const formulas = () => {
    for (const el of document.querySelectorAll(".arithmatex")) {
      const m = el.textContent.trim().match(/^\\([[(])([\s\S]*)\\[\])]$/);
      const tex = m ? m[2] : el.textContent;
      const block = el.tagName === "DIV" || (m && m[1] === "[");
      if (window.katex) window.katex.render(tex, el, {displayMode: block, throwOnError: false});
      else { el.textContent = tex.trim(); el.classList.add("nb-tex"); }
    }
  };

  let plotly;   // The library is large: load it when the first figure comes near
  const library = () => plotly ??= new Promise((done, fail) => {
    const s = Object.assign(document.createElement("script"), {src: new URL("plotly.min.js", here), onload: () => done(window.Plotly), onerror: fail});
    document.head.append(s);
  });
  const draw = async el => {
    const {data, layout, frames} = JSON.parse(el.querySelector("script").textContent);
    const {width, ...rest} = layout ?? {};
    const figure = el.appendChild(document.createElement("div"));
    await (await library()).newPlot(figure, {data, frames, layout: {...rest, autosize: true}, config: {responsive: true, displaylogo: false}});
  };
  const figures = () => {
    const near = new IntersectionObserver(entries => entries.filter(e => e.isIntersecting).forEach(e => { near.unobserve(e.target); draw(e.target); }), {rootMargin: "400px"});
    document.querySelectorAll(".nb-plotly").forEach(el => near.observe(el));
  };

  const start = () => { formulas(); figures(); };
  document.readyState === "loading" ? document.addEventListener("DOMContentLoaded", start) : start();
})();
