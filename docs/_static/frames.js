// A frame becomes as high as the page in it. A site that is read from files keeps the height of site.css: browsers don't
// let its pages see one another.
for (const frame of document.querySelectorAll(".graph-page")) {
  frame.addEventListener("load", () => {
    const page = frame.contentDocument?.documentElement;
    if (!page) return;
    new ResizeObserver(() => { frame.style.height = `${page.offsetHeight + 2}px`; }).observe(page);
  });
}
