"""A page of the tree viewer in a real browser, with what its user can do there."""


class Page:
    """A page as its user sees it."""

    def __init__(self, driver, path, link: str = ""):
        self.driver = driver
        driver.get("about:blank")
        driver.get_log("browser")
        driver.get(path.as_uri() + link)
        self.wait("return performance.getEntriesByName('drawn').length")
        if driver.execute_script("return localStorage.length"):
            driver.execute_script("localStorage.clear()")

    def do(self, script: str, *arguments):
        return self.driver.execute_script(script, *arguments)

    def wait(self, script: str):
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, 20, 0.02).until(lambda driver: driver.execute_script(script))

    def text(self, selector: str) -> str:
        return self.do("return document.querySelector(arguments[0])?.textContent ?? ''", selector)

    def texts(self, selector: str) -> list[str]:
        script = "return [...document.querySelectorAll(arguments[0])].map((element) => element.textContent)"
        return self.do(script, selector)

    def press(self, *keys: str):
        from selenium.webdriver import ActionChains
        from selenium.webdriver.common.keys import Keys

        for key in keys:
            ActionChains(self.driver).send_keys(getattr(Keys, key, key)).perform()

    def choose(self, select: str, text: str):
        from selenium.webdriver.support.ui import Select

        Select(self.driver.find_element("id", select)).select_by_visible_text(text)

    def type(self, text: str):
        field = self.driver.find_element("id", "text")
        field.clear()
        field.send_keys(text)

    def open(self, number: int, node: str | None = None):
        """The tree of the row with this number in the file."""
        self.driver.execute_async_script(
            "openTree(page.index.rows[arguments[0]], arguments[1]).then(arguments[2])", number, node
        )

    def focused(self) -> str:
        return self.do("return document.activeElement.id || document.activeElement.getAttribute('aria-label')")

    def found(self) -> list[int]:
        return self.do("return page.list.found.map((row) => row.id)")

    def check_quiet(self):
        """Nothing was run or loaded but the page itself, and the console is empty."""
        assert self.driver.get_log("browser") == []
        assert self.do("return typeof window.hacked") == "undefined"
        assert self.do("return performance.getEntriesByType('resource').length") == 0
