"""Ways in which a text has become a script, or loaded something from outside, in one browser or another.

``{run}`` stands for JavaScript that the test would notice, ``x.example`` for a host that nobody may ask.
"""

RUNNING = [
    "<script>{run}</script>",
    '<img src=x onerror="{run}">',
    '<img src=x OnError="{run}">',
    '<svg onload="{run}"></svg>',
    "<svg><script>{run}</script></svg>",
    '<svg><animate onbegin="{run}" attributeName=x dur=1s></svg>',
    '<details open ontoggle="{run}">x</details>',
    '<input autofocus onfocus="{run}">',
    '<body onload="{run}">',
    '<marquee onstart="{run}">x</marquee>',
    '<video><source onerror="{run}"></video>',
    '<iframe srcdoc="<script>parent.{run}</script>"></iframe>',
    '<object data="javascript:{run}"></object>',
    '<embed src="javascript:{run}">',
    '<meta http-equiv="refresh" content="0;url=javascript:{run}">',
    # what one parser takes for text and another for tags
    '<!--><img src=x onerror="{run}">-->',
    '<!--!><img src=x onerror="{run}">-->',
    '<![CDATA[<img src=x onerror="{run}">]]>',
    '<?x ><img src=x onerror="{run}">?>',
    '<!x "><img src=x onerror="{run}">',
    '<math><mtext></p><img src=x onerror="{run}"></mtext></math>',
    "<noscript><p title=\"</noscript><img src=x onerror='{run}'>\">",
    "<template><script>{run}</script></template>",
    "<textarea><p title=\"</textarea><img src=x onerror='{run}'>\">",
    "<title><p title=\"</title><img src=x onerror='{run}'>\">",
    "<xmp><p title=\"</xmp><img src=x onerror='{run}'>\">",
    "<style><p title=\"</style><img src=x onerror='{run}'>\">",
    "<select><p title=\"</select><img src=x onerror='{run}'>\">",
    '<svg></p><style><a id="</style><img src=x onerror={run}>">',
]
CLICKED = [
    '<a href="javascript:{run}">click</a>',
    '<a href="JaVaScRiPt:{run}">click</a>',
    '<a href="java\tscript:{run}">click</a>',
    '<a href="java&#x0a;script:{run}">click</a>',
    '<a href="\x01javascript:{run}">click</a>',
    '<a href="&#1;javascript:{run}">click</a>',
    '<a href="javascript&colon;{run}">click</a>',
    '<a href="data:text/html,<script>{run}</script>">click</a>',
    '<a href="vbscript:{run}">click</a>',
    '<svg><a xlink:href="javascript:{run}"><text x=20 y=20>click</text></a></svg>',
    '<svg><a><animate attributeName="href" values="#;javascript:{run}"/><text y="20">click</text></a></svg>',
    '<svg><a><set attributeName="href" to=" javascript:{run}"/><text y="20">click</text></a></svg>',
    '<math><a xlink:href="javascript:{run}">click</a></math>',
    '<button formaction="javascript:{run}">click</button>',
    '<form action="javascript:{run}"><input type=submit></form>',
]
LOADING = [
    '<img src="https://x.example/a.png">',
    '<img src=" https://x.example/a.png">',
    '<img src="ht\ntps://x.example/a.png">',
    '<img src="&#1;https://x.example/a.png">',
    '<img src="https:x.example/a.png">',
    '<img src="//x.example/a.png">',
    '<img src="\\\\x.example/a.png">',
    '<img src="/\\x.example/a.png">',
    '<img srcset="https://x.example/a.png 1x">',
    '<picture><source srcset="https://x.example/a.png"><img src="y.png"></picture>',
    '<input type=image src="https://x.example/a.png">',
    '<table background="https://x.example/a.png"><tr><td>x</table>',
    '<div style="background:url(https://x.example/a.png)">x</div>',
    '<div style="background:u\\72l(https://x.example/a.png)">x</div>',
    "<div style=\"background-image:image-set('https://x.example/a.png' 1x)\">x</div>",
    '<style>@import "https://x.example/a.css";</style>',
    '<svg><style>@import "https://x.example/a.css";</style></svg>',
    '<svg><image href="https://x.example/a.png" width=9 height=9 /></svg>',
    '<svg><use href="https://x.example/a.svg#a"/></svg>',
    '<svg><filter id=f><feImage href="https://x.example/a.png"/></filter><rect filter="url(#f)"/></svg>',
    '<link rel=stylesheet href="https://x.example/a.css">',
    '<base href="https://x.example/">',
    '<iframe src="https://x.example/a"></iframe>',
    '<audio src="https://x.example/a.mp3" autoplay></audio>',
    '<a ping="https://x.example/a" href="#q">click</a>',
]
EVERY = [*RUNNING, *CLICKED, *LOADING]


def named(number: int, text: str) -> str:
    """Return a hostile text whose script adds its number to `window.ran`, and whose host has it too."""
    return text.replace("{run}", f"window.ran=[window.ran,{number}]").replace(
        "x.example", f"x{number}.example"
    )
